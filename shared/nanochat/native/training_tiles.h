// What products and attention in training share beside linear.h's tile: one whose first operand lies the other way round,
// and a walk over panels by tiles as wide as fit.
#pragma once

#include "linear.h"

namespace nanochat {

// Of a tile with up to six rows.
constexpr int kWidePanels = 4;

// sums[r][j] += a[k][r] * b[k][j]: as multiply_tile, a lying the other way round.
template <int R, int P>
inline void multiply_transposed(const float* a, size_t lda, const float* b, size_t ldb, int K, f32x16 (&sums)[R][P]) {
  f32x16 total[R][P];
  unrolled<R>([&](auto r) NANOCHAT_INLINE { unrolled<P>([&](auto j) NANOCHAT_INLINE { total[r][j] = sums[r][j]; }); });
  for (int k = 0; k < K; ++k) {
    f32x16 w[P];
    unrolled<P>([&](auto j) NANOCHAT_INLINE { w[j] = load(b + k * ldb + j * kLanes); });
    unrolled<R>([&](auto r) NANOCHAT_INLINE {
      const f32x16 x = splat(a[k * lda + r]);
      unrolled<P>([&](auto j) NANOCHAT_INLINE { total[r][j] += x * w[j]; });
    });
  }
  unrolled<R>([&](auto r) NANOCHAT_INLINE { unrolled<P>([&](auto j) NANOCHAT_INLINE { sums[r][j] = total[r][j]; }); });
}

// work(first panel, how many as a constant) until `panels` are done.
template <int P = kWidePanels, typename Work>
inline void by_panels(int first, int panels, const Work& work) {
  for (; first + P <= panels; first += P) work(first, std::integral_constant<int, P>{});
  if constexpr (P > 1) by_panels<P - 1>(first, panels, work);
}

}  // namespace nanochat
