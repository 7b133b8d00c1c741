// What training.py calls: parts of a training step that torch does at a fraction of the processor's speed. Threads are
// OpenMP's, torch's own: others would share cores with those, which go on spinning after each product.
// Functions give 0; -1 where memory ran out, -2 where a target lies out of range: then nothing was done.
#include <memory>
#include <new>

#include <omp.h>

#include "training_attention.h"
#include "training_loss.h"
#include "training_product.h"

using namespace nanochat;

namespace {
constexpr int kNoMemory = -1, kOutOfRange = -2, kIgnored = -1;

// work(attention, b, kv_head) for every key/value head of every row.
template <typename Work>
int for_heads(const AttentionShape& shape, const Work& work) {
  const int tasks = shape.B * shape.Hk, threads = std::max(1, std::min(omp_get_max_threads(), tasks));
  const size_t size = HeadAttention::size(shape) + kLanes;  // so that threads share no line
  const std::unique_ptr<float[]> scratch(new (std::nothrow) float[size * threads]);
  if (!scratch) return kNoMemory;
#pragma omp parallel num_threads(threads)
  {
    HeadAttention attention(shape, scratch.get() + size * omp_get_thread_num());
#pragma omp for schedule(dynamic)
    for (int task = 0; task < tasks; ++task) work(attention, task / shape.Hk, task % shape.Hk);
  }
  return 0;
}
}  // namespace

extern "C" {

// logits (R, V), targets, losses and factors (R,)
int nanochat_row_losses(float* logits, const int64_t* targets, int64_t R, int64_t V, float cap, float* losses,
                        float* factors) {
  if (std::any_of(targets, targets + R, [&](int64_t target) { return target < kIgnored || target >= V; })) return kOutOfRange;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < R; ++r) row_loss(logits + r * V, targets[r], V, cap, losses[r], factors[r]);
  return 0;
}

int nanochat_attention_forward(const AttentionShape* shape, const float* q, const float* k, const float* v, float* y,
                               float* lse) {
  return for_heads(*shape, [&](HeadAttention& attention, int b, int head) { attention.forward(b, head, q, k, v, y, lse); });
}

int nanochat_attention_backward(const AttentionShape* shape, const float* q, const float* k, const float* v, const float* y,
                                const float* lse, const float* y_grad, float* q_grad, float* k_grad, float* v_grad) {
  return for_heads(*shape, [&](HeadAttention& attention, int b, int head) {
    attention.backward(b, head, q, k, v, y, lse, y_grad, q_grad, k_grad, v_grad);
  });
}

// out (M, N) = a (M, K) @ b (N, K).T, or that much more with `adds`; a's and b's strides of rows and columns, of which one is 1
int nanochat_multiply(const float* a, int64_t a_row, int64_t a_column, const float* b, int64_t b_row, int64_t b_column,
                      float* out, int64_t M, int64_t N, int64_t K, int adds) {
  try {
    Product({a, a_row, a_column}, {b, b_row, b_column}, out, M, N, K, adds != 0).run();
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  }
  return 0;
}

}  // extern "C"
