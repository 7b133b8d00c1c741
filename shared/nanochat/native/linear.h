// Products of activations (M, K) with a weight (N, K), packed in panels of sixteen outputs: float32, or int8 with a
// scale for each output and, found anew each time, for each row of activations.
//
// Every output is one sum over k in order, whatever rows are computed beside it, so that a row's result never depends
// on the batch. A tile of kRows x kPanels sums fits the registers; with few rows the product is bound by reading weights.
// The first tile of a task reads them from memory, the others find them in the cache: meanwhile they ask for those that
// their thread reads next, or memory would idle. So do threads that wait for others (team.h).
#pragma once

#include <algorithm>

#include "amx.h"
#include "memory.h"
#include "simd.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace nanochat {

#if defined(__AVX512F__)
constexpr int kRows = 8, kPanels = 3;
#else
constexpr int kRows = 6, kPanels = 1;
#endif

// What int8 takes at once, in rows and k.
#if defined(__AMX_INT8__)
constexpr bool kHasTiles = true;
constexpr int kInt8Rows = 2 * kTileRows, kInt8Depth = kTileDepth;
#else
constexpr bool kHasTiles = false;
constexpr int kInt8Rows = kRows, kInt8Depth = 4;
#endif

// Rows of activations that one task takes: enough to make up for reading its panels.
constexpr int kTaskRows = 64;
// So that whole tiles of rows lie within a whole task's, for which buffers have room.
static_assert(!kHasTiles || kTaskRows % kInt8Rows == 0);

// A panel's lines: one k of sixteen floats, or four k of them in int8.
static_assert(kLine == kLanes * sizeof(float));

// Panels that are read soon, side by side.
struct Span {
  const char* begin = nullptr;
  size_t bytes = 0, panel_bytes = 0;
};

// What a tile asks memory for where it reads a line of a panel (inline by force: GCC drops calls that only do this): nothing;
struct FetchNothing {
  NANOCHAT_INLINE void operator()(int, const void*) {}
};
// the same panels a little further on and, towards their ends, where hardware would lose the streams, those of `next`;
struct FetchAhead {
  static constexpr int kAheadLines = 32;
  FetchAhead(const char* panels, size_t panel_bytes, Span next)
      : at(panels + (kAheadLines - 1) * kLine),
        panel_bytes(panel_bytes),
        lines_left(std::max(0, static_cast<int>(panel_bytes / kLine) - kAheadLines)),
        next(next) {}
  NANOCHAT_INLINE void operator()(int panel, const void*) {
    if (panel == 0) {
      at += kLine;
      if (lines_left-- == 0) at = next.begin, panel_bytes = next.panel_bytes;
    }
    __builtin_prefetch(at + panel * panel_bytes, 0, 2);
  }
  const char* at;
  size_t panel_bytes;
  int lines_left;
  Span next;
};
// once for all panels, what comes later: hardware fetches what lies between;
struct FetchLater {
  const char* at;
  size_t step;
  NANOCHAT_INLINE void operator()(int panel, const void*) {
    if (panel > 0) return;
    __builtin_prefetch(at, 0, 2);
    at += step;
  }
};
// or both.
struct FetchBoth {
  FetchAhead ahead;
  FetchLater later;
  NANOCHAT_INLINE void operator()(int panel, const void* line) {
    ahead(panel, line);
    later(panel, line);
  }
};

// For tiles that go through k once a panel: what they ask for, panel after panel as the others do, in the first pass.
template <int P, typename F>
inline void fetch_panels(const int8_t* line, size_t panel_stride, F& fetch) {
  for (int j = 0; j < P; ++j) fetch(j, line + j * panel_stride);
}

// sums[r][j] += a[r][k] * b[j][k], over k in order. Panel j begins at b + j * panel_stride; its row k is ldb further.
template <int R, int P, typename T, typename F = FetchNothing>
inline void multiply_tile(const float* a, size_t lda, const T* b, size_t panel_stride, size_t ldb, int K,
                          f32x16 (&sums)[R][P], F fetch = {}) {
  f32x16 total[R][P];
  unrolled<R>([&](auto r) NANOCHAT_INLINE { unrolled<P>([&](auto j) NANOCHAT_INLINE { total[r][j] = sums[r][j]; }); });
  for (int k = 0; k < K; ++k) {
    f32x16 w[P];
    unrolled<P>([&](auto j) NANOCHAT_INLINE {
      const T* line = b + j * panel_stride + k * ldb;
      fetch(j, line);
      w[j] = load(line);
    });
    unrolled<R>([&](auto r) NANOCHAT_INLINE {
      const f32x16 x = splat(a[r * lda + k]);
      unrolled<P>([&](auto j) NANOCHAT_INLINE { total[r][j] += x * w[j]; });
    });
  }
  unrolled<R>([&](auto r) NANOCHAT_INLINE { unrolled<P>([&](auto j) NANOCHAT_INLINE { sums[r][j] = total[r][j]; }); });
}

// Four neighbouring k of sixteen outputs lie together: one dot-product instruction takes them in.
#if defined(__AVX512VNNI__)
template <int R, int P, typename F>
inline void multiply_tile(const uint8_t* a, size_t lda, const int8_t* b, size_t panel_stride, int K,
                          i32x16 (&sums)[R][P], F fetch) {
  __m512i total[R][P];
  unrolled<R>([&](auto r) NANOCHAT_INLINE {
    unrolled<P>([&](auto j) NANOCHAT_INLINE { total[r][j] = _mm512_setzero_si512(); });
  });
  for (int k = 0; k < K; k += 4) {
    __m512i w[P];
    unrolled<P>([&](auto j) NANOCHAT_INLINE {
      const int8_t* line = b + j * panel_stride + static_cast<size_t>(k) * kLanes;
      fetch(j, line);
      w[j] = _mm512_loadu_si512(line);
    });
    unrolled<R>([&](auto r) NANOCHAT_INLINE {
      int32_t four;
      std::memcpy(&four, a + r * lda + k, 4);
      const __m512i x = _mm512_set1_epi32(four);
      // In assembly: with the intrinsic, compilers copy every sum to another register and back.
      unrolled<P>([&](auto j) NANOCHAT_INLINE { asm("vpdpbusd %2, %1, %0" : "+v"(total[r][j]) : "v"(x), "v"(w[j])); });
    });
  }
  unrolled<R>([&](auto r) NANOCHAT_INLINE {
    unrolled<P>([&](auto j) NANOCHAT_INLINE { sums[r][j] = std::bit_cast<i32x16>(total[r][j]); });
  });
}
#elif defined(__AVX2__)
// In 16 bits, as the 8-bit instruction of AVX2 saturates: a register holds four outputs, each as two sums of pairs.
template <int R, int P, typename F>
inline void multiply_tile(const uint8_t* a, size_t lda, const int8_t* b, size_t panel_stride, int K,
                          i32x16 (&sums)[R][P], F fetch) {
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < P; ++j) {
      __m256i pairs[4] = {};
      for (int k = 0; k < K; k += 4) {
        int32_t four;
        std::memcpy(&four, a + r * lda + k, 4);
        const __m256i x = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(four)));
        const int8_t* w = b + j * panel_stride + static_cast<size_t>(k) * kLanes;
        if (r == 0 && j == 0) fetch_panels<P>(w, panel_stride, fetch);
        for (int part = 0; part < 4; ++part) {
          const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * part));
          pairs[part] = _mm256_add_epi32(pairs[part], _mm256_madd_epi16(x, _mm256_cvtepi8_epi16(bytes)));
        }
      }
      int32_t* out = reinterpret_cast<int32_t*>(&sums[r][j]);
      for (int part = 0; part < 4; ++part) {
        int32_t halves[8];
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(halves), pairs[part]);
        for (int i = 0; i < 4; ++i) out[4 * part + i] = halves[2 * i] + halves[2 * i + 1];
      }
    }
  }
}
#else
template <int R, int P, typename F>
inline void multiply_tile(const uint8_t* a, size_t lda, const int8_t* b, size_t panel_stride, int K,
                          i32x16 (&sums)[R][P], F fetch) {
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < P; ++j) {
      i32x16 total{};
      for (int k = 0; k < K; k += 4) {
        const int8_t* w = b + j * panel_stride + static_cast<size_t>(k) * kLanes;
        if (r == 0 && j == 0) fetch_panels<P>(w, panel_stride, fetch);
        for (int n = 0; n < kLanes; ++n)
          for (int i = 0; i < 4; ++i) total[n] += a[r * lda + k + i] * w[4 * n + i];
      }
      sums[r][j] = total;
    }
}
#endif

// Where a product's outputs lie, row by row.
struct Outputs {
  float* values;
  size_t ld;
  float* at(int row, int n) const { return values + static_cast<size_t>(row) * ld + n; }
};

// Activations as a product takes them: float32, and for an int8 weight bytes around 128 with a scale a row.
struct Activations {
  const float* values;
  const uint8_t* bytes;
  const float* scales;
  size_t ld;        // of values
  size_t bytes_ld;  // of bytes
};

// One row to bytes: 128 is zero, the largest magnitude 127 away. Up to a multiple of kInt8Depth follow zeros, as weights have.
inline float quantize_row(const float* x, int K, uint8_t* bytes) {
  f32x16 most{};
  int k = 0;
  for (; k + kLanes <= K; k += kLanes) {
    const f32x16 v = load(x + k);
    most = max(most, max(v, -v));
  }
  float largest = max(most);
  for (; k < K; ++k) largest = std::max(largest, std::fabs(x[k]));
  const float scale = largest > 0 ? largest / 127.0f : 1.0f;
  const float inverse = 1.0f / scale;
  // 1.5 * 2^23 + 128: the sum's low byte is the rounded value around 128.
  constexpr float kShift = 12582912.0f + 128.0f;
  for (k = 0; k + kLanes <= K; k += kLanes) {
    const f32x16 shifted = load(x + k) * inverse + kShift;
    const i32x16 bits = std::bit_cast<i32x16>(shifted);
#if defined(__AVX512F__)
    _mm512_mask_cvtepi32_storeu_epi8(bytes + k, 0xFFFF, std::bit_cast<__m512i>(bits));
#else
    for (int i = 0; i < kLanes; ++i) bytes[k + i] = static_cast<uint8_t>(bits[i]);
#endif
  }
  for (; k < K; ++k) {
    const float shifted = x[k] * inverse + kShift;
    int32_t bits;
    std::memcpy(&bits, &shifted, 4);
    bytes[k] = static_cast<uint8_t>(bits);
  }
  for (; k < round_up(K, kInt8Depth); ++k) bytes[k] = 128;
  return scale;
}

class Linear {
 public:
  Linear() = default;

  // Of zeros, in the arena.
  Linear(int N, int K, bool is_int8, Arena& arena) : N_(N), K_(K), padded_K_(round_up(K, kInt8Depth)), is_int8_(is_int8) {
    num_panels_ = round_up(N, kLanes) / kLanes;
    if (is_int8) {
      int8_ = arena.take<int8_t>(bytes());
      scales_ = arena.take<float>(padded_N());
      offsets_ = arena.take<int32_t>(padded_N());
    } else {
      float_ = arena.take<float>(bytes() / sizeof(float));
    }
  }

  // weight: (N, K) row-major; not kept.
  void pack(const float* weight) { is_int8_ ? pack_int8(weight) : pack_float(weight); }

  int N() const { return N_; }
  int K() const { return K_; }
  int padded_N() const { return num_panels_ * kLanes; }
  bool is_int8() const { return is_int8_; }
  size_t bytes() const { return num_panels_ * panel_bytes(); }

  int num_groups() const { return (num_panels_ + kPanels - 1) / kPanels; }
  int num_tasks(int M) const { return num_groups() * row_blocks(M); }

  // Tasks come group by group of panels. The first of the group after a task's:
  int next_group(int task, int M) const { return (task / row_blocks(M) + 1) * row_blocks(M); }

  // What a task reads of the weight; several share it where there are many rows.
  Span task_weights(int task, int M) const {
    const int group = task / row_blocks(M);
    if (group >= num_groups()) return {};
    const int panels = std::min(kPanels, num_panels_ - group * kPanels);
    return {panel(group * kPanels), panels * panel_bytes(), panel_bytes()};
  }

  // finish(where they lie, number of the first, sixteen outputs): all those of one task, panels of the padding included.
  // `soon` is what the thread reads next.
  template <typename Finish>
  void run_task(int task, int M, const Activations& x, Span soon, Outputs y, const Finish& finish) const {
    const int first_panel = task / row_blocks(M) * kPanels;
    const int first_row = task % row_blocks(M) * kTaskRows, last_row = std::min(M, first_row + kTaskRows);
    const int panels = std::min(kPanels, num_panels_ - first_panel);
    const int tile_rows = is_int8_ ? kInt8Rows : kRows, tiles = (last_row - first_row + tile_rows - 1) / tile_rows;
    const auto compute = [&](int row, auto fetch) {
      const int rows = std::min(tile_rows, last_row - row);
#if defined(__AMX_INT8__)
      // Few rows wait for weights, and those come faster to vectors.
      if (is_int8_ && last_row - first_row > kRows) return amx_tile<kPanels>(rows, panels, row, first_panel, x, fetch, y, finish);
#endif
      dispatch<kRows, kPanels>(rows, panels, row, first_panel, x, fetch, y, finish);
    };
    if (!soon.begin) soon = {panel(first_panel), 0, panel_bytes()};  // asking for what is there costs nothing
    const FetchAhead ahead(panel(first_panel), panel_bytes(), soon);
    if (tiles == 1) return compute(first_row, ahead);
    // A core has few lines on their way at once, and waits with more: so all tiles ask for their share. Of two, the first
    // has enough to do with its own.
    const bool first_asks = tiles > 2;
    const size_t steps = static_cast<size_t>(tiles - !first_asks) * num_lines();
    FetchLater later{soon.begin, std::min(panels * kLine, (soon.bytes + steps - 1) / steps)};
    first_asks ? compute(first_row, FetchBoth{ahead, later}) : compute(first_row, ahead);
    for (int tile = 1; tile < tiles; ++tile) {
      if (tile > 1 || first_asks) later.at += num_lines() * later.step;
      compute(first_row + tile * tile_rows, later);
    }
  }

 private:
  // From a number of rows and panels to the tile of that size.
  template <int R, int P, typename F, typename Finish>
  void dispatch(int rows, int panels, int row, int panel, const Activations& x, F fetch, Outputs y,
                const Finish& finish) const {
    if constexpr (P > 1) {
      if (panels < P) return dispatch<R, P - 1>(rows, panels, row, panel, x, fetch, y, finish);
    }
    if constexpr (R > 1) {
      if (rows < R) return dispatch<R - 1, P>(rows, panels, row, panel, x, fetch, y, finish);
    }
    // Before they are written, or the last sums of each tile wait for the lines.
    unrolled<R>([&](auto r) NANOCHAT_INLINE {
      unrolled<P>([&](auto j) NANOCHAT_INLINE { __builtin_prefetch(y.at(row + r, (panel + j) * kLanes), 1, 3); });
    });
    is_int8_ ? int8_tile<R, P>(row, panel, x, fetch, y, finish) : float_tile<R, P>(row, panel, x, fetch, y, finish);
  }

  template <int R, int P, typename F, typename Finish>
  void float_tile(int row, int first_panel, const Activations& x, F fetch, Outputs y, const Finish& finish) const {
    f32x16 sums[R][P] = {};
    multiply_tile<R, P>(x.values + row * x.ld, x.ld, reinterpret_cast<const float*>(panel(first_panel)),
                        panel_bytes() / sizeof(float), kLanes, K_, sums, fetch);
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < P; ++j) {
        const int n = (first_panel + j) * kLanes;
        finish(y.at(row + r, n), n, sums[r][j]);
      }
  }

  template <int R, int P, typename F, typename Finish>
  void int8_tile(int row, int first_panel, const Activations& x, F fetch, Outputs y, const Finish& finish) const {
    i32x16 sums[R][P];
    multiply_tile<R, P>(x.bytes + row * x.bytes_ld, x.bytes_ld, reinterpret_cast<const int8_t*>(panel(first_panel)),
                        panel_bytes(), padded_K_, sums, fetch);
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < P; ++j) finish_int8(row + r, first_panel + j, sums[r][j], x, y, finish);
  }

#if defined(__AMX_INT8__)
  // Whole tiles of rows are read; what is beyond `rows` lies in the buffer and comes to nothing.
  template <int P, typename F, typename Finish>
  void amx_tile(int rows, int panels, int row, int first_panel, const Activations& x, F fetch, Outputs y,
                const Finish& finish) const {
    if constexpr (P > 1) {
      if (panels < P) return amx_tile<P - 1>(rows, panels, row, first_panel, x, fetch, y, finish);
    }
    alignas(kLine) int32_t sums[2][P][kTileRows][kLanes];
    for (int r = 0; r < rows; ++r)
      for (int j = 0; j < P; ++j) __builtin_prefetch(y.at(row + r, (first_panel + j) * kLanes), 1, 3);
    const uint8_t* a = x.bytes + row * x.bytes_ld;
    const int8_t* b = reinterpret_cast<const int8_t*>(panel(first_panel));
    rows > kTileRows ? multiply_tiles<2, P>(a, x.bytes_ld, b, panel_bytes(), padded_K_, sums, fetch)
                     : multiply_tiles<1, P>(a, x.bytes_ld, b, panel_bytes(), padded_K_, sums, fetch);
    for (int r = 0; r < rows; ++r)
      for (int j = 0; j < P; ++j) {
        const int32_t* found = sums[r / kTileRows][j][r % kTileRows];
        finish_int8(row + r, first_panel + j, *reinterpret_cast<const i32x16*>(found), x, y, finish);
      }
  }
#endif

  template <typename Finish>
  void finish_int8(int row, int panel, i32x16 sums, const Activations& x, Outputs y, const Finish& finish) const {
    const int n = panel * kLanes;
    const f32x16 exact = __builtin_convertvector(sums - *reinterpret_cast<const i32x16*>(offsets_ + n), f32x16);
    finish(y.at(row, n), n, exact * (load(scales_ + n) * x.scales[row]));
  }

  static int row_blocks(int M) { return (M + kTaskRows - 1) / kTaskRows; }

  // Of a panel; a tile's loop has as many steps.
  int num_lines() const { return is_int8_ ? padded_K_ / 4 : K_; }
  size_t panel_bytes() const { return num_lines() * kLine; }
  const char* panel(int i) const {
    const void* begin = is_int8_ ? static_cast<const void*>(int8_) : float_;
    return static_cast<const char*>(begin) + i * panel_bytes();
  }

  void pack_float(const float* weight) {
    for (int n = 0; n < N_; ++n)
      for (int k = 0; k < K_; ++k)
        float_[(static_cast<size_t>(n / kLanes) * K_ + k) * kLanes + n % kLanes] =
            weight[static_cast<size_t>(n) * K_ + k];
  }

  void pack_int8(const float* weight) {
    for (int n = 0; n < N_; ++n) {
      const float* w = weight + static_cast<size_t>(n) * K_;
      float largest = 0;
      for (int k = 0; k < K_; ++k) largest = std::max(largest, std::fabs(w[k]));
      const float scale = largest > 0 ? largest / 127.0f : 1.0f;
      int32_t total = 0;
      int8_t* panel = int8_ + static_cast<size_t>(n / kLanes) * padded_K_ * kLanes;
      for (int k = 0; k < K_; ++k) {
        const int8_t q = static_cast<int8_t>(std::lrint(w[k] / scale));
        panel[(k / 4 * kLanes + n % kLanes) * 4 + k % 4] = q;
        total += q;
      }
      scales_[n] = scale;
      offsets_[n] = 128 * total;  // activations are stored 128 too large
    }
  }

  int N_ = 0, K_ = 0, padded_K_ = 0, num_panels_ = 0;
  bool is_int8_ = false;
  float *float_ = nullptr, *scales_ = nullptr;
  int8_t* int8_ = nullptr;
  int32_t* offsets_ = nullptr;
};

}  // namespace nanochat
