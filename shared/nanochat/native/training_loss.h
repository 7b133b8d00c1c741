// A row of the head's logits becomes its loss and, in the same place, the gradient of that: one reading of memory.
#pragma once

#include <algorithm>

#include "simd.h"

namespace nanochat {

// 1 - tanh(x / cap), and what capped logits weigh in the softmax: at most 1, so no search for the largest is needed.
struct Capped {
  f32x16 below, weight;
};

inline Capped capped(f32x16 logits, float cap) {
  const f32x16 below = 2.0f / (exp(logits * (2.0f / cap)) + 1.0f);
  return {below, exp(-cap * below)};
}

// logits (V,) become their gradient but for `factor`, which is known at the row's end: loss.py's row_losses. A negative
// target does not count: then both are 0.
inline void row_loss(float* logits, int64_t target, int64_t V, float cap, float& loss, float& factor) {
  const float at_target = target >= 0 ? logits[target] : 0.0f;
  constexpr int kAtOnce = 4;  // sums that do not wait for each other
  f32x16 totals[kAtOnce] = {};
  int64_t i = 0;
  for (; i + kAtOnce * kLanes <= V; i += kAtOnce * kLanes) {
    unrolled<kAtOnce>([&](auto j) NANOCHAT_INLINE {
      const Capped c = capped(load(logits + i + j * kLanes), cap);
      store(logits + i + j * kLanes, c.weight * c.below * (2.0f - c.below));
      totals[j] += c.weight;
    });
  }
  float total = sum((totals[0] + totals[1]) + (totals[2] + totals[3]));
  for (; i < V; i += kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(kLanes, V - i));
    f32x16 rest{};
    std::memcpy(&rest, logits + i, count * sizeof(float));
    const Capped c = capped(rest, cap);
    const f32x16 grad = c.weight * c.below * (2.0f - c.below);
    std::memcpy(logits + i, &grad, count * sizeof(float));
    for (int lane = 0; lane < count; ++lane) total += c.weight[lane];
  }
  loss = factor = 0.0f;
  if (target < 0) return;
  const float below = capped(splat(at_target), cap).below[0];
  logits[target] -= total * below * (2.0f - below);
  loss = std::log(total) + cap * below;
  factor = 1.0f / total;
}

}  // namespace nanochat
