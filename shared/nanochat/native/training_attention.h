// Causal attention of whole rows and its gradients, in float32: one key/value head of one row at a time, its keys and
// values packed, some dozens of queries over them with all their scores in the core's own cache.
//
// Products are linear.h's tiles. Scores are not kept for the gradients but computed once more, from the logarithm of each
// query's sum (Dao et al. 2022, FlashAttention). A query sees itself and `window` positions to its left; tiles that no
// query of theirs sees are passed over.
#pragma once

#include <limits>

#include "training_tiles.h"

namespace nanochat {

struct AttentionShape {
  int32_t B, T, H, Hk, D, window;
  float scale;
};

// Rows of a tile: with kWidePanels panels as many sums as there are registers for, and what they are made of.
constexpr int kQueryTile = 6;
constexpr int kKeyTile = 4;  // divides a panel
constexpr int kQueryBlock = 8 * kQueryTile;

// One key/value head of one row, and its queries. `scratch` holds size(shape) floats.
class HeadAttention {
 public:
  HeadAttention(const AttentionShape& shape, float* scratch)
      : s_(shape), width_(round_up(shape.D, kLanes)), keys_(round_up(shape.T, kLanes)), row_(keys_ + kLanes) {
    const size_t table = static_cast<size_t>(keys_) * width_, block = static_cast<size_t>(kQueryBlock) * width_;
    for (float** part : {&k_, &v_, &k_grad_, &v_grad_}) *part = std::exchange(scratch, scratch + table);
    for (float** part : {&k_panels_, &v_panels_}) *part = std::exchange(scratch, scratch + keys_ / kLanes * panel_size());
    for (float** part : {&q_, &y_grad_}) *part = std::exchange(scratch, scratch + block);
    for (float** part : {&weights_, &score_grads_})
      *part = std::exchange(scratch, scratch + static_cast<size_t>(kQueryBlock) * row_);
  }

  static size_t size(const AttentionShape& s) {
    const size_t width = round_up(s.D, kLanes), keys = round_up(s.T, kLanes);
    return 4 * keys * width + 2 * keys * (width + 1) + 2 * kQueryBlock * (width + keys + kLanes);
  }

  // q, y: (B, T, H, D); k, v: (B, T, Hk, D); lse: (B, H, T), the logarithm of each query's sum of weights.
  void forward(int b, int kv_head, const float* q, const float* k, const float* v, float* y, float* lse) {
    float factors[kQueryBlock];
    load_keys(b, kv_head, k, v);
    for (int head = kv_head * group(); head < (kv_head + 1) * group(); ++head)
      for (int first = 0; first < s_.T; first += kQueryBlock) {
        const Block block = make_block(first);
        pack(q + at(b, first, head, s_.H), s_.H, block.count, s_.scale, q_);
        score(block);
        for (int r = 0; r < block.count; ++r) {
          float* weights = row(weights_, r);
          hide(block, r, weights);
          const float top = largest(weights, block.begin(r), block.end(r));
          const float total = exponentiate(weights, block.begin(r), block.end(r), top);
          lse[(static_cast<size_t>(b) * s_.H + head) * s_.T + first + r] = top + std::log(total);
          factors[r] = 1.0f / total;
        }
        add_up(block, weights_, v_, factors, y + at(b, first, head, s_.H));
      }
  }

  // y_grad and q_grad are shaped as y, the other two gradients as k.
  void backward(int b, int kv_head, const float* q, const float* k, const float* v, const float* y, const float* lse,
                const float* y_grad, float* q_grad, float* k_grad, float* v_grad) {
    load_keys(b, kv_head, k, v);
    into_panels(v_, v_panels_);
    float factors[kQueryBlock];
    std::fill_n(factors, kQueryBlock, s_.scale);
    std::fill_n(k_grad_, 2 * static_cast<size_t>(keys_) * width_, 0.0f);  // v_grad_ lies behind it
    for (int head = kv_head * group(); head < (kv_head + 1) * group(); ++head)
      for (int first = 0; first < s_.T; first += kQueryBlock) {
        const Block block = make_block(first);
        const size_t place = at(b, first, head, s_.H);
        pack(q + place, s_.H, block.count, s_.scale, q_);
        pack(y_grad + place, s_.H, block.count, 1.0f, y_grad_);
        score(block);
        float along[kQueryBlock] = {};  // sum over d of y * its gradient: what a query's weights gain together
        for (int r = 0; r < kQueryBlock; ++r) {
          float* weights = row(weights_, r);
          if (r >= block.padded) break;
          if (r >= block.count) {
            std::fill(weights + block.first_key, weights + block.last_key, 0.0f);
            continue;
          }
          hide(block, r, weights);
          exponentiate(weights, block.begin(r), block.end(r), lse[(static_cast<size_t>(b) * s_.H + head) * s_.T + first + r]);
          along[r] = dot(y + place + static_cast<size_t>(r) * s_.H * s_.D, y_grad_ + static_cast<size_t>(r) * width_);
        }
        for (int r = 0; r < block.padded; r += kQueryTile)
          for_keys(block, r, y_grad_, v_panels_, [&](int i, int key, f32x16 grad) NANOCHAT_INLINE {
            const f32x16 weight = load(row(weights_, r + i) + key);
            store(row(score_grads_, r + i) + key, weight * (grad - along[r + i]));
          });
        add_up(block, score_grads_, k_, factors, q_grad + place);
        add_to_keys(block, score_grads_, q_, k_grad_);
        add_to_keys(block, weights_, y_grad_, v_grad_);
      }
    unpack(k_grad_, k_grad + at(b, 0, kv_head, s_.Hk));
    unpack(v_grad_, v_grad + at(b, 0, kv_head, s_.Hk));
  }

 private:
  // Queries `first` to first + count, padded to whole tiles, and the keys from first_key to last_key that any of them sees.
  struct Block {
    int first, count, padded, first_key, last_key, window;
    // Whole panels that the query's tile sees: scores are computed there and nowhere else.
    int begin(int r) const { return std::max(0, first + r / kQueryTile * kQueryTile - window) / kLanes * kLanes; }
    int end(int r) const {
      return std::min(round_up(first + (r / kQueryTile + 1) * kQueryTile, kLanes), last_key);
    }
  };

  Block make_block(int first) const {
    const int count = std::min(kQueryBlock, s_.T - first), padded = round_up(count, kQueryTile);
    const int last_key = std::min(round_up(first + padded, kLanes), keys_);
    return {first, count, padded, std::max(0, first - s_.window) / kLanes * kLanes, last_key, s_.window};
  }

  int group() const { return s_.H / s_.Hk; }
  size_t at(int b, int t, int head, int heads) const {
    return ((static_cast<size_t>(b) * s_.T + t) * heads + head) * s_.D;
  }
  template <typename T>
  T* row(T* scores, int r) const {
    return scores + static_cast<size_t>(r) * row_;
  }
  // A panel is a line longer than it has to be, and so is a row: places a power of two apart share a set of the cache.
  size_t panel_size() const { return static_cast<size_t>(width_ + 1) * kLanes; }

  void load_keys(int b, int kv_head, const float* k, const float* v) {
    pack(k + at(b, 0, kv_head, s_.Hk), s_.Hk, s_.T, 1.0f, k_, keys_);
    pack(v + at(b, 0, kv_head, s_.Hk), s_.Hk, s_.T, 1.0f, v_, keys_);
    into_panels(k_, k_panels_);
  }

  // (count, D) at a head's stride -> (rows, width), zero beyond.
  void pack(const float* from, int heads, int count, float scale, float* to, int rows = kQueryBlock) const {
    for (int t = 0; t < count; ++t) {
      const float* row = from + static_cast<size_t>(t) * heads * s_.D;
      float* packed = to + static_cast<size_t>(t) * width_;
      for (int d = 0; d < s_.D; ++d) packed[d] = scale * row[d];
      std::fill(packed + s_.D, packed + width_, 0.0f);
    }
    std::fill(to + static_cast<size_t>(count) * width_, to + static_cast<size_t>(rows) * width_, 0.0f);
  }

  void unpack(const float* from, float* to) const {
    for (int t = 0; t < s_.T; ++t)
      std::copy_n(from + static_cast<size_t>(t) * width_, s_.D, to + static_cast<size_t>(t) * s_.Hk * s_.D);
  }

  // (keys, width) -> panels of sixteen keys: (keys / 16, width, 16).
  void into_panels(const float* from, float* to) const {
    for (int t = 0; t < keys_; t += kLanes)
      for (int d = 0; d < width_; ++d)
        for (int lane = 0; lane < kLanes; ++lane)
          to[t / kLanes * panel_size() + d * kLanes + lane] = from[static_cast<size_t>(t + lane) * width_ + d];
  }

  // Products of a tile's rows of a (block, width) with the keys they see: use(row of the tile, key, sixteen products).
  template <typename Use>
  void for_keys(const Block& block, int r, const float* a, const float* panels, const Use& use) const {
    by_panels(block.begin(r) / kLanes, block.end(r) / kLanes, [&](int panel, auto count) NANOCHAT_INLINE {
      f32x16 sums[kQueryTile][count] = {};
      multiply_tile<kQueryTile, count>(a + static_cast<size_t>(r) * width_, width_, panels + panel * panel_size(), panel_size(),
                                       kLanes, width_, sums);
      unrolled<kQueryTile>([&](auto i) NANOCHAT_INLINE {
        unrolled<count>([&](auto j) NANOCHAT_INLINE { use(i, (panel + j) * kLanes, sums[i][j]); });
      });
    });
  }

  void score(const Block& block) {
    for (int r = 0; r < block.padded; r += kQueryTile)
      for_keys(block, r, q_, k_panels_,
               [&](int i, int key, f32x16 scores) NANOCHAT_INLINE { store(row(weights_, r + i) + key, scores); });
  }

  // Of the keys that were scored with its tile, what query r does not see.
  void hide(const Block& block, int r, float* scores) const {
    constexpr float kHidden = -std::numeric_limits<float>::infinity();
    const int position = block.first + r, begin = block.begin(r), end = block.end(r);
    std::fill(scores + begin, scores + std::max(begin, position - s_.window), kHidden);
    std::fill(scores + std::min(end, position + 1), scores + end, kHidden);
  }

  static float largest(const float* scores, int begin, int end) {
    f32x16 most = load(scores + begin), other = most;
    for (int i = begin; i < end - kLanes; i += 2 * kLanes) {
      most = max(most, load(scores + i));
      other = max(other, load(scores + i + kLanes));
    }
    return max(max(max(most, other), load(scores + end - kLanes)));
  }

  // scores become e^(score - top); returns their sum.
  static float exponentiate(float* scores, int begin, int end, float top) {
    f32x16 total{};
    for (int i = begin; i < end; i += kLanes) {
      const f32x16 weight = exp(load(scores + i) - top);
      store(scores + i, weight);
      total += weight;
    }
    return sum(total);
  }

  // Of D numbers with D packed ones.
  float dot(const float* a, const float* packed) const {
    f32x16 total{};
    for (int d = 0; d < s_.D; d += kLanes) {
      f32x16 some{};
      std::memcpy(&some, a + d, std::min(kLanes, s_.D - d) * sizeof(float));
      total += some * load(packed + d);
    }
    return sum(total);
  }

  // out (count, D), at the queries' stride, = factors (count,) * weights (count, keys) @ table (keys, width)
  void add_up(const Block& block, const float* weights, const float* table, const float* factors, float* out) const {
    for (int r = 0; r < block.padded; r += kQueryTile)
      by_panels(0, width_ / kLanes, [&](int panel, auto count) NANOCHAT_INLINE {
        const int begin = block.begin(r), d = panel * kLanes;
        f32x16 sums[kQueryTile][count] = {};
        multiply_tile<kQueryTile, count>(row(weights, r) + begin, row_, table + static_cast<size_t>(begin) * width_ + d, kLanes,
                                         width_, block.end(r) - begin, sums);
        unrolled<kQueryTile>([&](auto i) NANOCHAT_INLINE {
          if (r + i >= block.count) return;
          unrolled<count>([&](auto j) NANOCHAT_INLINE {
            const f32x16 total = sums[i][j] * factors[r + i];
            const int channel = d + j * kLanes;
            std::memcpy(out + static_cast<size_t>(r + i) * s_.H * s_.D + channel, &total,
                        std::min(kLanes, s_.D - channel) * sizeof(float));
          });
        });
      });
  }

  // total (keys, width) += weights (queries, keys).T @ table (queries, width)
  void add_to_keys(const Block& block, const float* weights, const float* table, float* total) const {
    for (int key = block.first_key; key < block.last_key; key += kKeyTile) {
      // The tiles of queries that have computed these keys.
      int from = 0, to = block.padded;
      while (from < to && block.end(from) <= key) from += kQueryTile;
      while (to > from && block.begin(to - 1) > key) to -= kQueryTile;
      by_panels(0, width_ / kLanes, [&](int panel, auto count) NANOCHAT_INLINE {
        float* sums_at = total + static_cast<size_t>(key) * width_ + panel * kLanes;
        f32x16 sums[kKeyTile][count];
        unrolled<kKeyTile>([&](auto i) NANOCHAT_INLINE {
          unrolled<count>([&](auto j) NANOCHAT_INLINE { sums[i][j] = load(sums_at + i * width_ + j * kLanes); });
        });
        multiply_transposed<kKeyTile, count>(weights + static_cast<size_t>(from) * row_ + key, row_,
                                             table + static_cast<size_t>(from) * width_ + panel * kLanes, width_, to - from, sums);
        unrolled<kKeyTile>([&](auto i) NANOCHAT_INLINE {
          unrolled<count>([&](auto j) NANOCHAT_INLINE { store(sums_at + i * width_ + j * kLanes, sums[i][j]); });
        });
      });
    }
  }

  const AttentionShape s_;
  const int width_, keys_, row_;  // D and T in whole vectors, and how far a row of scores is from the next
  float *k_, *v_, *k_panels_, *v_panels_, *k_grad_, *v_grad_;  // (keys, width), or the same in panels
  float *q_, *y_grad_;                                         // (kQueryBlock, width)
  float *weights_, *score_grads_;                              // (kQueryBlock, keys)
};

}  // namespace nanochat
