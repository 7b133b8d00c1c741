// Products of two float32 matrices that lie either way round: what a linear map gives, and both of its gradients.
//
// As in Goto and van de Geijn 2008 (Anatomy of High-Performance Matrix Multiplication), a part of B is packed once, for all
// threads to read, in groups of panels; each takes blocks of A's rows, packs them for itself where they lie column by column,
// and multiplies them by one group after the other with linear.h's tiles. Every output is a sum over k in order, however
// many threads there are.
#pragma once

#include <omp.h>

#include "memory.h"
#include "training_tiles.h"

namespace nanochat {

// Element (i, k) lies at `values` + i * row + k * column; one of the two strides is 1.
struct Matrix {
  const float* values;
  int64_t row, column;
  const float* at(int64_t i, int64_t k) const { return values + i * row + k * column; }
};

// Sixteen rows of sixteen floats become columns: four times, rows i and i + 8 are interleaved to rows 2i and 2i + 1.
inline void transpose(const float* from, int64_t from_row, float* to, int64_t to_row) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  constexpr int kHalf = kLanes / 2;
  __m512 rows[kLanes], mixed[kLanes];
  const auto interleave = [&](const __m512(&in)[kLanes], __m512(&out)[kLanes]) NANOCHAT_INLINE {
    unrolled<kHalf>([&](auto i) NANOCHAT_INLINE {
      out[2 * i] = _mm512_permutex2var_ps(in[i], low, in[i + kHalf]);
      out[2 * i + 1] = _mm512_permutex2var_ps(in[i], high, in[i + kHalf]);
    });
  };
  unrolled<kLanes>([&](auto i) NANOCHAT_INLINE { rows[i] = _mm512_loadu_ps(from + i * from_row); });
  interleave(rows, mixed);
  interleave(mixed, rows);
  interleave(rows, mixed);
  interleave(mixed, rows);
  unrolled<kLanes>([&](auto i) NANOCHAT_INLINE { _mm512_storeu_ps(to + i * to_row, rows[i]); });
}

// out (M, N), row after row, = A (M, K) @ B (N, K).T, or that much more where it `adds`.
class Product {
 public:
  Product(const Matrix& a, const Matrix& b, float* out, int64_t M, int64_t N, int64_t K, bool adds)
      : a_(a), b_(b), out_(out), M_(M), N_(N), K_(K), adds_(adds), threads_(omp_get_max_threads()) {
    width_ = std::min(padded(N, kLanes), kPackedFloats / std::min(K, kWholeDepth) / kLanes * kLanes);
    span_ = std::min(K, kPackedFloats / width_);
    depth_ = span_ <= kWholeDepth ? span_ : kDepth;
    // Each thread has as many blocks of rows: as many as it takes for one to fit, and where rows suffice a few, so that
    // little is waited for where others want a core.
    const int64_t most = std::max<int64_t>(kBlockFloats / depth_, kRows), own = (M + threads_ - 1) / threads_;
    const int64_t blocks = std::max((own + most - 1) / most, std::clamp<int64_t>(own / kLeastRows, 1, kFewBlocks));
    rows_ = padded((own + blocks - 1) / blocks, kRows);
  }

  // Throws std::bad_alloc before anything is written.
  void run() {
    // Kept for the next product of this thread: fresh memory costs as much as a small product.
    static thread_local Buffer<float> packed, blocks;
    const size_t block = static_cast<size_t>(rows_) * (depth_ + kLanes);
    reserve(packed, static_cast<size_t>(width_) * span_);
    reserve(blocks, block * threads_);
    float *const b = packed.get(), *const all = blocks.get();
#pragma omp parallel num_threads(threads_)
    {
      float* const a = all + block * omp_get_thread_num();
      for (int64_t n = 0; n < N_; n += width_)
        for (int64_t k = 0; k < K_; k += span_) {
          const Columns columns(std::min(width_, N_ - n));
          const int64_t end = std::min(k + span_, K_);
#pragma omp for collapse(2) schedule(dynamic)
          for (int64_t at = k; at < end; at += depth_)
            for (int group = 0; group < columns.groups; ++group)
              pack_group(columns, group, n, Depth(at, end, depth_), b + columns.padded * (at - k));
#pragma omp for schedule(dynamic)
          for (int64_t m = 0; m < M_; m += rows_)
            for (int64_t at = k; at < end; at += depth_)
              multiply(columns, m, n, Depth(at, end, depth_), a, b + columns.padded * (at - k));
        }
    }
  }

 private:
  // What is packed of B at once, 4 MiB; of A by a thread, 512 KiB: half of a core's own cache.
  static constexpr int64_t kPackedFloats = 1 << 20, kBlockFloats = 1 << 17;
  // Sums over more k are interrupted each kDepth: outputs are read and written once more.
  static constexpr int64_t kWholeDepth = 2048, kDepth = 512;
  static constexpr int64_t kLeastRows = 192, kFewBlocks = 4;
  // Columns ahead, of a matrix that lies column by column: each is on another page, which hardware does not foresee.
  static constexpr int kSoon = 32;

  static int64_t padded(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

  static void reserve(Buffer<float>& buffer, size_t count) {
    if (buffer.bytes() < count * sizeof(float)) buffer = Buffer<float>(count);
  }

  // Some columns of the outputs, in groups of two or three panels: a tile of one would be a slow one.
  struct Columns {
    explicit Columns(int64_t N)
        : count(static_cast<int>(N)), panels((count + kLanes - 1) / kLanes), groups((panels + kPanels - 1) / kPanels),
          padded(panels * kLanes) {}
    const int count, panels, groups, padded;
    int first_panel(int group) const { return group * panels / groups; }
    int first(int group) const { return first_panel(group) * kLanes; }
  };

  // From k on, so many.
  struct Depth {
    Depth(int64_t k, int64_t end, int64_t most) : k(k), count(static_cast<int>(std::min(most, end - k))) {}
    const int64_t k;
    const int count;
    int row_size() const { return count + kLanes; }  // of A's rows: powers of two would share a set of the cache
  };

  // A group's panels side by side: (depth, panels * 16), zero beyond N.
  void pack_group(const Columns& columns, int group, int64_t n, Depth depth, float* b) const {
    const int first = columns.first(group), width = columns.first(group + 1) - first;
    const int count = std::min(width, columns.count - first);
    const float* from = b_.at(n + first, depth.k);
    float* to = b + static_cast<size_t>(first) * depth.count;
    if (count < width) std::fill_n(to, static_cast<size_t>(width) * depth.count, 0.0f);
    if (b_.row == 1) {
      for (int k = 0; k < depth.count; ++k, to += width, from += b_.column) {
        for (int i = 0; i < count; i += kLanes) __builtin_prefetch(from + kSoon * b_.column + i);
        std::memcpy(to, from, count * sizeof(float));
      }
      return;
    }
    for (int i = 0; i < count; i += kLanes)
      for (int k = 0; k < depth.count; k += kLanes) {
        const float* corner = from + i * b_.row + k;
        float* target = to + static_cast<size_t>(k) * width + i;
        if (i + kLanes <= count && k + kLanes <= depth.count) {
          transpose(corner, b_.row, target, width);
        } else {
          for (int r = 0; r < std::min(kLanes, count - i); ++r)
            for (int c = 0; c < std::min(kLanes, depth.count - k); ++c)
              target[static_cast<size_t>(c) * width + r] = corner[r * b_.row + c];
        }
      }
  }

  // Rows of A from m on, zero beyond, in tiles of eight: column by column where they lie so, else row by row.
  void pack_rows(int64_t m, int count, Depth depth, float* a) const {
    const float* from = a_.at(m, depth.k);
    const int tiles = (count + kRows - 1) / kRows;
    if (a_.row == 1) {
      for (int k = 0; k < depth.count; ++k, from += a_.column)
        for (int tile = 0; tile < tiles; ++tile) {
          const int r = tile * kRows;
          __builtin_prefetch(from + kSoon * a_.column + r);
          float* to = a + static_cast<size_t>(r) * depth.row_size() + k * kRows;
          if (r + kRows <= count) {
            std::memcpy(to, from + r, kRows * sizeof(float));
          } else {
            std::fill_n(to, kRows, 0.0f);
            std::memcpy(to, from + r, (count - r) * sizeof(float));
          }
        }
      return;
    }
    for (int r = 0; r < tiles * kRows; ++r) {
      float* to = a + static_cast<size_t>(r) * depth.row_size();
      if (r < count) std::memcpy(to, from + r * a_.row, depth.count * sizeof(float));
      else std::fill_n(to, depth.count, 0.0f);
    }
  }

  void multiply(const Columns& columns, int64_t m, int64_t n, Depth depth, float* a, const float* b) const {
    const int count = static_cast<int>(std::min(rows_, M_ - m));
    // Rows that lie one after the other are read where they are, which hardware foresees; but whole tiles of them.
    const bool is_packed = a_.row == 1 || count % kRows != 0;
    if (is_packed) pack_rows(m, count, depth, a);
    const Matrix rows = is_packed ? Matrix{a, depth.row_size(), 1} : Matrix{a_.at(m, depth.k), a_.row, 1};
    for (int group = 0; group < columns.groups; ++group) {
      const int first = columns.first(group);
      const int panels_here = columns.first_panel(group + 1) - columns.first_panel(group);
      by_panels<kPanels>(0, panels_here, [&](int, auto panels) NANOCHAT_INLINE {
        for (int r = 0; r < count; r += kRows)
          tile<panels>(depth, rows.at(r, 0), rows.row, b + static_cast<size_t>(first) * depth.count,
                       out_ + (m + r) * N_ + n + first, std::min(kRows, count - r), columns.count - first);
      });
    }
  }

  // Of kRows rows and P panels those sums that are within `rows` and `columns`.
  template <int P>
  void tile(Depth depth, const float* a, int64_t a_row, const float* b, float* out, int rows, int columns) const {
    f32x16 sums[kRows][P] = {};
    const auto each = [&](const auto& use) NANOCHAT_INLINE {
      if (rows == kRows && columns >= P * kLanes) {
        unrolled<kRows>([&](auto r) NANOCHAT_INLINE {
          unrolled<P>([&](auto j) NANOCHAT_INLINE { use(out + r * N_ + j * kLanes, sums[r][j], sizeof(f32x16)); });
        });
      } else {
        for (int r = 0; r < rows; ++r)
          for (int j = 0; j < P && j * kLanes < columns; ++j)
            use(out + r * N_ + j * kLanes, sums[r][j], std::min(kLanes, columns - j * kLanes) * sizeof(float));
      }
    };
    each([](const float* at, f32x16&, size_t) NANOCHAT_INLINE { __builtin_prefetch(at, 1, 3); });
    const bool begins = depth.k == 0 && !adds_;
    if (!begins) each([](const float* at, f32x16& sum, size_t size) NANOCHAT_INLINE { std::memcpy(&sum, at, size); });
    constexpr int kWidth = P * kLanes;
    if (a_.row == 1) multiply_transposed<kRows, P>(a, kRows, b, kWidth, depth.count, sums);
    else multiply_tile<kRows, P>(a, a_row, b, kLanes, kWidth, depth.count, sums);
    each([](float* at, const f32x16& sum, size_t size) NANOCHAT_INLINE { std::memcpy(at, &sum, size); });
  }

  const Matrix a_, b_;
  float* const out_;
  const int64_t M_, N_, K_;
  const bool adds_;
  const int threads_;
  // What is packed at once: of B width_ x span_, in pieces of depth_; of A, by a thread, rows_ x depth_.
  int64_t width_, span_, depth_, rows_;
};

}  // namespace nanochat
