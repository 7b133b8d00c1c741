// Attention of one row's new tokens over its slot, a few queries of one key/value head at a time.
//
// Scores and weighted sums are the same tiles as in linear.h: keys are a panel of sixteen positions, values panels of
// sixteen channels. A query sees itself and `window` positions to its left; what it does not see has weight zero, and
// sums run over positions in order, so that neither its neighbours nor the size of a step changes its result.
//
// Decoding is bound by reading keys and values: while keys are read, their values are asked for, and while those are read,
// keys of the thread's next task: memory has to do in either half.
#pragma once

#include <limits>

#include "kv_cache.h"
#include "linear.h"

namespace nanochat {

// A row of a step: `count` new tokens of a slot from `start` on, at `first` among the tokens of the step.
struct StepRow {
  int slot, start, count, first;
};

struct AttentionTask {
  int row;
  int head;         // key/value head
  int first_query;  // of count * group queries: token by token, the group's heads side by side
};

// The keys that a thread reads next: so many blocks from `first` on.
struct NextKeys {
  int slot = 0, head = 0, first = 0, count = 0;
};

// What is asked for where a line is read: the place so far from it.
struct FetchBeside {
  ptrdiff_t distance;
  NANOCHAT_INLINE void operator()(int, const void* line) {
    __builtin_prefetch(static_cast<const char*>(line) + distance, 0, 2);
  }
};
// Or the next of the lines from `at` to `end`, of which some may be left: two at a time, so that none is, were slower.
struct FetchLines {
  const char *at = nullptr, *end = nullptr;
  NANOCHAT_INLINE void operator()(int, const void*) {
    if (at >= end) return;
    __builtin_prefetch(at, 0, 2);
    at += kLine;
  }
};

// T: what the cache's numbers are.
template <typename T>
class Attention {
 public:
  Attention(const LayerCache& cache, int window, int group) : cache_(cache), window_(window), group_(group) {}

  // Floats of scratch that run() needs.
  static size_t scratch_size(int head_dim, int max_len) {
    return static_cast<size_t>(kRows) * (head_dim + round_up(max_len, kBlock) + 2 * kBlock);
  }

  // Those that a task reads.
  NextKeys keys_of(const StepRow& row, const AttentionTask& task) const {
    const int queries = std::min(kRows, row.count * group_ - task.first_query);
    const int first = first_block(row.start + task.first_query / group_);
    const int last = (row.start + (task.first_query + queries - 1) / group_) / kBlock;
    return {row.slot, task.head, first, last - first + 1};
  }

  // q: (tokens, ld), scaled; y: (tokens, ld_y). Heads lie side by side, head_dim each.
  void run(const StepRow& row, const AttentionTask& task, const NextKeys& soon, const float* q, size_t ld, float* y, size_t ld_y,
           float* scratch) const {
    const int queries = std::min(kRows, row.count * group_ - task.first_query);
    dispatch<kRows>(queries, row, task, soon, q, ld, y, ld_y, scratch);
  }

 private:
  template <int R>
  void dispatch(int queries, const StepRow& row, const AttentionTask& task, const NextKeys& soon, const float* q, size_t ld,
                float* y, size_t ld_y, float* scratch) const {
    if constexpr (R > 1) {
      if (queries < R) return dispatch<R - 1>(queries, row, task, soon, q, ld, y, ld_y, scratch);
    }
    tile<R>(row, task, soon, q, ld, y, ld_y, scratch);
  }

  template <int R>
  void tile(const StepRow& row, const AttentionTask& task, const NextKeys& soon, const float* q, size_t ld, float* y, size_t ld_y,
            float* scratch) const {
    const int D = cache_.head_dim, head = task.head, first_query = task.first_query;
    float* queries = scratch;                         // (R, D)
    float* weights = scratch + static_cast<size_t>(R) * D;  // (R, keys)
    const int first_position = row.start + first_query / group_;
    const int last_position = row.start + (first_query + R - 1) / group_;
    const int first = first_block(first_position), last = last_position / kBlock;
    const int keys = (last - first + 1) * kBlock;
    for (int r = 0; r < R; ++r) {
      const float* from = q + (row.first + (first_query + r) / group_) * ld + column(head, first_query + r);
      std::copy(from, from + D, queries + static_cast<size_t>(r) * D);
    }
    score<R>(row.slot, head, first, last, queries, weights, keys);
    float inverse[R];
    for (int r = 0; r < R; ++r) {
      const int position = row.start + (first_query + r) / group_ - first * kBlock;
      inverse[r] = softmax(weights + static_cast<size_t>(r) * keys, keys, position - window_, position);
    }
    for (int d = 0; d < cache_.padded_dim; d += kPanels * kLanes)
      sum_values<R, kPanels>(row.slot, head, d, first, last, weights, keys, d == 0 ? soon : NextKeys{},
                             [&](int r, int channel, f32x16 total) {
        float* out = y + (row.first + (first_query + r) / group_) * ld_y + column(head, first_query + r) + channel;
        total = total * inverse[r];
        std::memcpy(out, &total, std::min(kLanes, D - channel) * sizeof(float));
      });
  }

  int first_block(int position) const { return std::max(0, position - window_) / kBlock; }

  size_t column(int head, int query) const {
    return static_cast<size_t>(head * group_ + query % group_) * cache_.head_dim;
  }

  template <int R>
  void score(int slot, int head, int first_block, int last_block, const float* queries, float* scores, int keys) const {
    for (int block = first_block, n; block <= last_block; block += n) {
      // kPanels at a time, where so many lie one after the other.
      n = std::min(cache_.num_blocks - block % cache_.num_blocks, last_block - block + 1) >= kPanels ? kPanels : 1;
      const T* panel = cache_.template keys<T>(slot, block, head);
      const FetchBeside fetch{static_cast<ptrdiff_t>(cache_.key_size() * sizeof(T))};
      float* out = scores + static_cast<size_t>(block - first_block) * kBlock;
      n == kPanels ? score_blocks<R, kPanels>(panel, queries, out, keys, fetch)
                   : score_blocks<R, 1>(panel, queries, out, keys, fetch);
    }
  }

  template <int R, int P>
  void score_blocks(const T* panel, const float* queries, float* out, int keys, FetchBeside fetch) const {
    f32x16 sums[R][P] = {};
    multiply_tile<R, P>(queries, cache_.head_dim, panel, cache_.block_size(), kLanes, cache_.head_dim, sums, fetch);
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < P; ++j) nanochat::store(out + static_cast<size_t>(r) * keys + j * kBlock, sums[r][j]);
  }

  // Scores of positions first to last become weights, the others zero; returns what makes the weights sum to 1.
  static float softmax(float* scores, int keys, int first, int last) {
    constexpr float kHidden = -std::numeric_limits<float>::infinity();
    f32x16 largest = splat(kHidden);
    for (int i = 0; i < keys; i += kLanes) {
      f32x16 score = load(scores + i);
      if (i < first || i + kLanes > last + 1) {
        const i32x16 key = kCounting + i;
        score = (key >= first) & (key <= last) ? score : splat(kHidden);
        nanochat::store(scores + i, score);
      }
      largest = max(largest, score);
    }
    const f32x16 top = splat(max(largest));
    f32x16 total{};
    for (int i = 0; i < keys; i += kLanes) {
      const f32x16 weight = exp(load(scores + i) - top);
      nanochat::store(scores + i, weight);
      total += weight;
    }
    return 1.0f / sum(total);
  }

  template <int R, int P, typename Finish>
  void sum_values(int slot, int head, int channel, int first_block, int last_block, const float* weights, int keys,
                  const NextKeys& soon, const Finish& finish) const {
    if constexpr (P > 1) {
      if (channel + P * kLanes > cache_.padded_dim)
        return sum_values<R, P - 1>(slot, head, channel, first_block, last_block, weights, keys, soon, finish);
    }
    f32x16 sums[R][P] = {};
    for (int block = first_block; block <= last_block; ++block) {
      const int i = block - first_block;
      FetchLines fetch;
      if (i < soon.count) {
        const auto* first = reinterpret_cast<const char*>(cache_.template keys<T>(soon.slot, soon.first + i, soon.head));
        fetch = {first, first + cache_.key_size() * sizeof(T)};
      }
      multiply_tile<R, P>(weights + static_cast<size_t>(i) * kBlock, keys,
                          cache_.template values<T>(slot, block, head) + channel, kLanes, cache_.padded_dim, kBlock, sums, fetch);
    }
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < P; ++j) finish(r, channel + j * kLanes, sums[r][j]);
  }

  const LayerCache& cache_;
  const int window_, group_;
};

}  // namespace nanochat
