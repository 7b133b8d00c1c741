// Intel's matrix registers (AMX): eight tiles of sixteen rows of 64 bytes a thread, and instructions that multiply two of
// them into a third: eight times what vector instructions multiply in the same time.
#pragma once

#include "memory.h"
#include "simd.h"

#if defined(__AMX_INT8__)
#include <immintrin.h>
#endif

namespace nanochat {

#if defined(__AMX_INT8__)

// Sets up a thread's tiles, all of full size, for as long as it lives. Linux must have been asked before (build.py).
class TileRegisters {
 public:
  TileRegisters() {
    struct {
      uint8_t palette = 1, first_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shapes;
    static_assert(sizeof(shapes) == 64);
    asm volatile("ldtilecfg %0" : : "m"(shapes));  // of the intrinsic, GCC before 14 does not know what it reads
  }
  // What a thread keeps of them, the system saves whenever it puts the thread aside.
  ~TileRegisters() { _tile_release(); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

// A tile's rows, and the k that it takes of int8.
constexpr int kTileRows = 16, kTileDepth = 64;

// sums[i][j][r][n]: R times sixteen rows of bytes with P panels of sixteen outputs (linear.h says how they lie), whole tiles
// of k.
template <int R, int P, typename F>
inline void multiply_tiles(const uint8_t* a, size_t lda, const int8_t* b, size_t panel_stride, int K,
                           int32_t (*sums)[P][kTileRows][kLanes], F fetch) {
  static_assert(R <= 2 && P <= 3);
  asm volatile("" ::: "memory");  // nor what tiles are loaded from
  // Tiles 0 to 5 are sums, first those of the first rows; 6 is of a, 7 of b.
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int k = 0; k < K; k += kTileDepth) {
    const int8_t* lines = b + static_cast<size_t>(k) * kLanes;
    for (int line = 0; line < kTileDepth / 4; ++line)
      for (int j = 0; j < P; ++j) fetch(j, lines + j * panel_stride + line * kLine);
    const uint8_t *first = a + k, *second = first + kTileRows * lda;
    // The rows that were with one panel last are the first with the next.
    _tile_loadd(7, lines, kLine);
    _tile_loadd(6, first, lda);
    _tile_dpbusd(0, 6, 7);
    if constexpr (R > 1) {
      _tile_loadd(6, second, lda);
      _tile_dpbusd(3, 6, 7);
    }
    if constexpr (P > 1) {
      _tile_loadd(7, lines + panel_stride, kLine);
      if constexpr (R > 1) {
        _tile_dpbusd(4, 6, 7);
        _tile_loadd(6, first, lda);
      }
      _tile_dpbusd(1, 6, 7);
    }
    if constexpr (P > 2) {
      _tile_loadd(7, lines + 2 * panel_stride, kLine);
      _tile_dpbusd(2, 6, 7);
      if constexpr (R > 1) {
        _tile_loadd(6, second, lda);
        _tile_dpbusd(5, 6, 7);
      }
    }
  }
  _tile_stored(0, sums[0][0], kLine);
  if constexpr (P > 1) _tile_stored(1, sums[0][1], kLine);
  if constexpr (P > 2) _tile_stored(2, sums[0][2], kLine);
  if constexpr (R > 1) {
    _tile_stored(3, sums[1][0], kLine);
    if constexpr (P > 1) _tile_stored(4, sums[1][1], kLine);
    if constexpr (P > 2) _tile_stored(5, sums[1][2], kLine);
  }
}

#else

struct TileRegisters {
  TileRegisters() {}
};

#endif

}  // namespace nanochat
