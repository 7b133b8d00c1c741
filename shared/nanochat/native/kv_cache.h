// Keys and values of every slot, as attention reads them: blocks of sixteen positions, keys with a block's positions side
// by side, values a row a position. A layer with a window is a ring of as many blocks as the window and one step's
// tokens need; the others have room for the whole context. Numbers are floats, or bf16 beside int8 weights: with many
// rows a step reads more of them than of the weights.
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
  // (slots, blocks, heads, keys and then values): a sequence takes up memory as it grows, without gaps.
  uint8_t* data = nullptr;  // the KVCache's
  size_t number_bytes = sizeof(float);  // of T below

  size_t key_size() const { return static_cast<size_t>(head_dim) * kBlock; }      // (head_dim, kBlock)
  size_t value_size() const { return static_cast<size_t>(kBlock) * padded_dim; }  // (kBlock, padded_dim)
  size_t block_size() const { return num_heads * (key_size() + value_size()); }
  size_t block_bytes() const { return block_size() * number_bytes; }
  size_t slot_bytes() const { return num_blocks * block_bytes(); }

  uint8_t* block(int slot, int block) const {
    return data + slot * slot_bytes() + block % num_blocks * block_bytes();
  }
  template <typename T>
  T* keys(int slot, int number, int head) const {
    return reinterpret_cast<T*>(block(slot, number)) + head * (key_size() + value_size());
  }
  template <typename T>
  T* values(int slot, int number, int head) const {
    return keys<T>(slot, number, head) + key_size();
  }

  template <typename T>
  void store(int slot, int head, int position, const float* k, const float* v) const {
    const int number = position / kBlock, lane = position % kBlock;
    T* key = keys<T>(slot, number, head) + lane;
    for (int d = 0; d < head_dim; ++d) round_to(k[d], key[static_cast<size_t>(d) * kBlock]);
    T* value = values<T>(slot, number, head) + static_cast<size_t>(lane) * padded_dim;
    for (int d = 0; d < head_dim; ++d) round_to(v[d], value[d]);
  }
};

// A block of a slot, and its place among those that are kept outside of slots.
struct KeptBlock {
  int32_t block, place;
};

class KVCache {
 public:
  KVCache(const std::vector<int>& windows, int num_heads, int head_dim, int num_slots, int max_len, int max_step,
          size_t number_bytes)
      : num_slots_(num_slots), max_len_(max_len), max_step_(max_step) {
    const int whole = round_up(max_len, kBlock) / kBlock;
    for (int window : windows) {
      LayerCache layer;
      // One block more: neither end of what is seen needs to begin a block.
      layer.num_blocks = std::min<long>(whole, round_up(std::min(window, max_len) + max_step, kBlock) / kBlock + 1);
      layer.num_heads = num_heads;
      layer.head_dim = head_dim;
      layer.padded_dim = round_up(head_dim, kLanes);
      layer.number_bytes = number_bytes;
      layers_.push_back(layer);
    }
    place();
  }

  const LayerCache& layer(int i) const { return layers_[i]; }
  int num_slots() const { return num_slots_; }
  int max_len() const { return max_len_; }
  int max_step() const { return max_step_; }

  size_t bytes() const {
    size_t total = 0;
    for (const auto& layer : layers_) total += num_slots_ * layer.slot_bytes();
    return total;
  }

  // Of one block of positions in all layers.
  size_t block_bytes() const {
    size_t total = 0;
    for (const auto& layer : layers_) total += layer.block_bytes();
    return total;
  }

  bool has_slot(int slot) const { return slot >= 0 && slot < num_slots_; }
  bool has_block(int slot, int block) const { return has_slot(slot) && block >= 0 && block < (max_len_ + kBlock - 1) / kBlock; }

  void copy_slot(int source, int target, int length) const {
    for (const auto& layer : layers_) {
      const int blocks = std::min(layer.num_blocks, round_up(length, kBlock) / kBlock);
      std::copy_n(layer.block(source, 0), blocks * layer.block_bytes(), layer.block(target, 0));
    }
  }

  // What a layer has of positions block * kBlock and the fifteen after it, out of a slot or into it. Layers are of one size:
  // their parts lie one after the other in a kept block.
  void save_block(int layer, int slot, int block, uint8_t* kept) const {
    const auto& own = layers_[layer];
    std::copy_n(own.block(slot, block), own.block_bytes(), kept + layer * own.block_bytes());
  }
  void restore_block(int layer, int slot, int block, const uint8_t* kept) const {
    const auto& own = layers_[layer];
    std::copy_n(kept + layer * own.block_bytes(), own.block_bytes(), own.block(slot, block));
  }

 private:
  // Layers one after the other. A huge page is zeroed when a sequence first reaches it, and that takes milliseconds: large
  // ones begin at different places of theirs, so that not all reach a new one with the same token.
  void place() {
    const bool has_pages = bytes() >= 4 * layers_.size() * kHugePage;
    const size_t unit = has_pages ? kHugePage : kLine;
    const auto whole = [unit](size_t bytes) { return (bytes + unit - 1) / unit * unit; };
    const size_t stagger = has_pages ? kHugePage / layers_.size() / kLine * kLine : 0;
    size_t total = layers_.size() * stagger;
    for (const auto& layer : layers_) total += whole(num_slots_ * layer.slot_bytes());
    memory_ = Buffer<uint8_t>(total);
    uint8_t* begin = memory_.get();
    for (size_t i = 0; i < layers_.size(); ++i) {
      layers_[i].data = begin + i * stagger;
      begin += whole(num_slots_ * layers_[i].slot_bytes());
    }
  }

  int num_slots_, max_len_, max_step_;
  Buffer<uint8_t> memory_;
  std::vector<LayerCache> layers_;
};

}  // namespace nanochat
