// Keys and values of every slot, as attention reads them: blocks of sixteen positions, keys with a block's positions side
// by side, values a row a position. A layer with a window is a ring of as many blocks as the window and one step's
// tokens need; the others have room for the whole context.
#pragma once

#include <algorithm>
#include <vector>

#include "memory.h"
#include "simd.h"

namespace nanochat {

constexpr int kBlock = kLanes;

struct LayerCache {
  int num_blocks = 0;  // of a ring; position p lies in block (p / kBlock) % num_blocks
  int num_heads = 0, head_dim = 0, padded_dim = 0;
  Buffer<float> keys;    // (slots, heads, blocks, head_dim, kBlock)
  Buffer<float> values;  // (slots, heads, blocks, kBlock, padded_dim)

  size_t key_block() const { return static_cast<size_t>(head_dim) * kBlock; }
  size_t value_block() const { return static_cast<size_t>(kBlock) * padded_dim; }
  float* keys_of(int slot, int head) const {
    return keys.get() + (static_cast<size_t>(slot) * num_heads + head) * num_blocks * key_block();
  }
  float* values_of(int slot, int head) const {
    return values.get() + (static_cast<size_t>(slot) * num_heads + head) * num_blocks * value_block();
  }

  void store(int slot, int head, int position, const float* k, const float* v) const {
    const int block = position / kBlock % num_blocks, lane = position % kBlock;
    float* key = keys_of(slot, head) + block * key_block() + lane;
    for (int d = 0; d < head_dim; ++d) key[static_cast<size_t>(d) * kBlock] = k[d];
    std::copy(v, v + head_dim, values_of(slot, head) + block * value_block() + static_cast<size_t>(lane) * padded_dim);
  }
};

class KVCache {
 public:
  KVCache(const std::vector<int>& windows, int num_heads, int head_dim, int num_slots, int max_len, int max_step)
      : num_slots_(num_slots), max_len_(max_len), max_step_(max_step) {
    const int whole = round_up(max_len, kBlock) / kBlock;
    for (int window : windows) {
      LayerCache layer;
      // One block more: neither end of what is seen needs to begin a block.
      layer.num_blocks = std::min<long>(whole, round_up(std::min(window, max_len) + max_step, kBlock) / kBlock + 1);
      layer.num_heads = num_heads;
      layer.head_dim = head_dim;
      layer.padded_dim = round_up(head_dim, kLanes);
      const size_t blocks = static_cast<size_t>(num_slots) * num_heads * layer.num_blocks;
      layer.keys = Buffer<float>(blocks * layer.key_block());
      layer.values = Buffer<float>(blocks * layer.value_block());
      layers_.push_back(std::move(layer));
    }
  }

  const LayerCache& layer(int i) const { return layers_[i]; }
  int num_slots() const { return num_slots_; }
  int max_len() const { return max_len_; }
  int max_step() const { return max_step_; }

  size_t bytes() const {
    size_t total = 0;
    for (const auto& layer : layers_) total += layer.keys.bytes() + layer.values.bytes();
    return total;
  }

  // Floats of one block of positions in all layers.
  size_t block_size() const {
    size_t total = 0;
    for (const auto& layer : layers_) total += layer.num_heads * (layer.key_block() + layer.value_block());
    return total;
  }

  void copy_slot(int source, int target, int length) const {
    for (const auto& layer : layers_) {
      const int blocks = std::min(layer.num_blocks, round_up(length, kBlock) / kBlock);
      for (int head = 0; head < layer.num_heads; ++head) {
        const float* k = layer.keys_of(source, head);
        const float* v = layer.values_of(source, head);
        std::copy(k, k + blocks * layer.key_block(), layer.keys_of(target, head));
        std::copy(v, v + blocks * layer.value_block(), layer.values_of(target, head));
      }
    }
  }

  // Positions block * kBlock and the fifteen after it, out of a slot or into it.
  void save_block(int slot, int block, float* saved) const { move_block<true>(slot, block, saved); }
  void restore_block(int slot, int block, float* saved) const { move_block<false>(slot, block, saved); }

 private:
  template <bool kSave>
  void move_block(int slot, int block, float* saved) const {
    for (const auto& layer : layers_) {
      const int at = block % layer.num_blocks;
      for (int head = 0; head < layer.num_heads; ++head) {
        saved = move<kSave>(layer.keys_of(slot, head) + at * layer.key_block(), layer.key_block(), saved);
        saved = move<kSave>(layer.values_of(slot, head) + at * layer.value_block(), layer.value_block(), saved);
      }
    }
  }
  template <bool kSave>
  static float* move(float* cached, size_t count, float* saved) {
    kSave ? std::copy(cached, cached + count, saved) : std::copy(saved, saved + count, cached);
    return saved + count;
  }

  int num_slots_, max_len_, max_step_;
  std::vector<LayerCache> layers_;
};

}  // namespace nanochat
