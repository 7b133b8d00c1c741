// The model on a CPU: one step over rows of different lengths, from token ids to logits (gpt.py is what it must equal).
//
// A step is a list of phases that all threads work through together, meeting after each. Within a phase, a thread has
// tasks of its own, so that it knows what it reads next, and then takes what others have left. Tokens of all rows lie one
// after the other, without padding: M of them, (M, width) row by row.
#pragma once

#include <chrono>

#include "attention.h"
#include "kv_cache.h"
#include "linear.h"
#include "team.h"
#include "thread_choice.h"

namespace nanochat {

struct Config {
  int32_t n_layer, n_head, n_kv_head, n_embd, head_dim, vocab_size;
  int32_t value_gate_channels, smear_channels, is_int8, num_threads;
  float qk_scale, value_gate_range, softcap;
};

// As library.py numbers them; that of the head has no layer.
enum class Matrix : int32_t { kQkv, kOut, kUp, kDown, kHead };

// Floats that are read where they lie; whoever gave them keeps them. Null where the model has none.
struct LayerTables {
  const float* value_gate = nullptr;       // (Hk, channels)
  const float* value_embedding = nullptr;  // (V, Hk * D)
};

// The phases of work(), with int8 weights; without they are fewer.
constexpr int kPhasesOfLayer = 10, kPhasesBeside = 3;

// Of its next weights, what a thread that waits asks for: a part of its core's own cache.
constexpr size_t kAheadBytes = size_t{128} << 10;

// Fewer are copied by one thread: a decoding row has one now and then, while other processes carry its last token on.
constexpr int kSharedBlocks = 8;

// Rows of a phase that works token by token, in one task.
constexpr int kTokenRows = 4;

class Rows {
 public:
  Rows() = default;
  Rows(int M, int width) : ld_(stride_bytes(width * sizeof(float)) / sizeof(float)), data_(static_cast<size_t>(M) * ld_) {}
  float* operator[](int row) const { return data_.get() + static_cast<size_t>(row) * ld_; }
  size_t ld() const { return ld_; }

 private:
  size_t ld_ = 0;
  Buffer<float> data_;
};

class Model {
 public:
  Model(const Config& config, const int32_t* windows)
      : config(config),
        windows(windows, windows + config.n_layer),
        layers(config.n_layer),
        team_(config.num_threads, kPhasesBeside + config.n_layer * kPhasesOfLayer),
        threads_(config.num_threads),
        copying_threads_(config.num_threads) {}

  struct Layer {
    Linear qkv, out, up, down;
    LayerTables tables;
  };

  const Config config;
  const std::vector<int> windows;
  Arena weight_memory;
  std::vector<Layer> layers;
  Linear head;
  const float* embedding = nullptr;   // (V, C)
  const float* smear_gate = nullptr;  // (channels,)
  const float* cosines = nullptr;     // (positions, D / 2)
  const float* sines = nullptr;
  std::vector<float> resid_lambdas, x0_lambdas;
  float smear_lambda = 0, backout_lambda = 0;

  KVCache new_cache(int num_slots, int max_len, int max_step) const {
    const size_t number_bytes = config.is_int8 ? sizeof(bf16) : sizeof(float);
    return KVCache(windows, config.n_kv_head, config.head_dim, num_slots, max_len, max_step, number_bytes);
  }

  // Does a step of M tokens stay within the cache, the vocabulary and itself, each slot in one row?
  bool fits(const KVCache& cache, const std::vector<StepRow>& rows, int M, const int32_t* token_ids,
            const int32_t* previous_ids, const std::vector<int>& wanted) const {
    std::vector<bool> is_taken(cache.num_slots());
    int total = 0;
    for (const auto& row : rows) {
      if (row.slot < 0 || row.slot >= cache.num_slots() || is_taken[row.slot]) return false;
      if (row.count < 1 || row.count > cache.max_step()) return false;
      if (row.start < 0 || row.start > cache.max_len() - row.count) return false;
      is_taken[row.slot] = true;
      total += row.count;
    }
    if (M < 1 || total != M) return false;
    for (int t = 0; t < M; ++t) {
      if (token_ids[t] < 0 || token_ids[t] >= config.vocab_size) return false;
      if (previous_ids[t] < -1 || previous_ids[t] >= config.vocab_size) return false;
    }
    return std::all_of(wanted.begin(), wanted.end(), [&](int t) { return t >= 0 && t < M; });
  }

  // token_ids, previous_ids: (M,), the latter -1 where a token has none before it. wanted: tokens, by their place in the
  // step, whose logits (num_wanted, vocab_size) are asked for. fits() is true of all this.
  void step(const KVCache& cache, const std::vector<StepRow>& rows, const int32_t* token_ids, const int32_t* previous_ids,
            const std::vector<int>& wanted, float* logits) {
    M_ = 0;
    for (const auto& row : rows) M_ += row.count;
    reserve(cache, M_, static_cast<int>(wanted.size()));
    plan(rows);
    const int active = threads_.choose(M_);
    const auto start = std::chrono::steady_clock::now();
    team_.run(active, [&](Team::Member& member) { work(member, cache, rows, token_ids, previous_ids, wanted, logits); });
    threads_.observe(M_, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }

  // Blocks of a slot, the first ones first, to their places at `kept`.
  void save_blocks(const KVCache& cache, int slot, const std::vector<KeptBlock>& blocks, uint8_t* kept) {
    copy_blocks(blocks, [&](int layer, KeptBlock from) {
      cache.save_block(layer, slot, from.block, kept + from.place * cache.block_bytes());
    });
  }

  // And back, where neighbours in the list are neighbours in the slot: a ring gets the last of them, as many as it holds.
  void restore_blocks(const KVCache& cache, int slot, const std::vector<KeptBlock>& blocks, const uint8_t* kept) {
    copy_blocks(blocks, [&](int layer, KeptBlock to) {
      if (to.block + cache.layer(layer).num_blocks > blocks.back().block)
        cache.restore_block(layer, slot, to.block, kept + to.place * cache.block_bytes());
    });
  }

  Linear& matrix(int layer, Matrix which) {
    if (which == Matrix::kHead) return head;
    Layer& own = layers[layer];
    return which == Matrix::kQkv ? own.qkv : which == Matrix::kOut ? own.out : which == Matrix::kUp ? own.up : own.down;
  }

  size_t weight_bytes() const {
    size_t total = head.bytes();
    for (const auto& layer : layers) total += layer.qkv.bytes() + layer.out.bytes() + layer.up.bytes() + layer.down.bytes();
    return total;
  }

 private:
  // Memory that is new to the process takes longer to come by than to fill, and that can be shared among threads too.
  template <typename Copy>
  void copy_blocks(const std::vector<KeptBlock>& blocks, const Copy& copy) {
    const int count = static_cast<int>(blocks.size());
    if (count == 0) return;
    const bool is_short = count < kSharedBlocks;
    const int active = is_short ? 1 : copying_threads_.choose(count);
    const auto start = std::chrono::steady_clock::now();
    team_.run(active, [&](Team::Member& member) {
      member.share(count * config.n_layer, [&](int i) { copy(i % config.n_layer, blocks[i / config.n_layer]); });
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!is_short) copying_threads_.observe(count, seconds);
  }

  // What one step writes, kept for the next; grown when a step is larger than any before.
  void reserve(const KVCache& cache, int M, int num_wanted) {
    const int C = config.n_embd;
    // Sizes are noted last: where memory runs out in between, the next step begins anew.
    if (M > room_) {
      const int room = round_up(M, kTaskRows);
      x_ = Rows(room, C), x0_ = Rows(room, C), middle_ = Rows(room, C), h_ = Rows(room, C), y_ = Rows(room, C);
      qkv_ = Rows(room, layers[0].qkv.padded_N());
      wide_ = Rows(room, 4 * C);
      bytes_ld_ = stride_bytes(4 * C);
      bytes_ = Buffer<uint8_t>(static_cast<size_t>(room) * bytes_ld_);
      scales_.assign(room, 0.0f);
      token_row_.assign(room, 0);
      room_ = room;
    }
    if (num_wanted > wanted_room_) {
      last_ = Rows(num_wanted, C);
      last_bytes_ = Buffer<uint8_t>(round_up(num_wanted, kInt8Rows) * stride_bytes(C));
      last_scales_.assign(num_wanted, 0.0f);
      wanted_room_ = num_wanted;
    }
    const size_t scratch = round_up(static_cast<int>(Attention<float>::scratch_size(config.head_dim, cache.max_len())), 64);
    if (scratch > scratch_size_) {
      scratch_ = Buffer<float>(scratch * team_.num_threads());
      scratch_size_ = scratch;
    }
  }

  void plan(const std::vector<StepRow>& rows) {
    tasks_.clear();
    for (int b = 0; b < static_cast<int>(rows.size()); ++b) {
      for (int i = 0; i < rows[b].count; ++i) token_row_[rows[b].first + i] = b;
      for (int head = 0; head < config.n_kv_head; ++head)
        for (int query = 0; query < rows[b].count * group(); query += kRows) tasks_.push_back({b, head, query});
    }
  }

  void work(Team::Member& member, const KVCache& cache, const std::vector<StepRow>& rows, const int32_t* token_ids,
            const int32_t* previous_ids, const std::vector<int>& wanted, float* logits) {
    const auto put = [](float* at, int, f32x16 v) { store(at, v); };
    const auto add = [](float* at, int, f32x16 v) { store(at, load(at) + v); };
    float* scratch = scratch_.get() + scratch_size_ * member.thread;
    const TileRegisters tiles;
    each_token(member, [&](int t) { embed(t, token_ids[t], previous_ids[t]); });
    for (int i = 0; i < config.n_layer; ++i) {
      const Layer& layer = layers[i];
      each_token(member, [&](int t) { enter_layer(i, t); });
      multiply(member, layer.qkv, &layer.out, hidden(), M_, outputs(qkv_), put);
      prepare_attention(member, i, cache.layer(i), rows, token_ids);
      config.is_int8 ? attend<bf16>(member, i, cache.layer(i), rows, scratch) : attend<float>(member, i, cache.layer(i), rows, scratch);
      quantize(member, layer.out, y_);
      multiply(member, layer.out, &layer.up, activations(y_), M_, outputs(x_), add);
      each_token(member, [&](int t) { normalize(x_[t], h_[t], layer.up.is_int8(), t); });
      multiply(member, layer.up, &layer.down, hidden(), M_, outputs(wide_), [](float* at, int, f32x16 v) {
        const f32x16 positive = max(v, f32x16{});
        store(at, positive * positive);
      });
      quantize(member, layer.down, wide_);
      const Linear& next = i + 1 < config.n_layer ? layers[i + 1].qkv : head;
      multiply(member, layer.down, &next, activations(wide_), M_, outputs(x_), add);
    }
    finish(member, wanted, logits);
  }

  void finish(Team::Member& member, const std::vector<int>& wanted, float* logits) {
    const int C = config.n_embd, V = config.vocab_size, count = static_cast<int>(wanted.size());
    const size_t ld = stride_bytes(C);
    member.share(count, [&](int n) {
      const float* x = x_[wanted[n]];
      // The last block's output where that is the middle one.
      const float* middle = config.n_layer / 2 + 1 < config.n_layer ? middle_[wanted[n]] : x;
      float* out = last_[n];
      for (int c = 0; c < C; c += kLanes) store(out + c, load(x + c) - backout_lambda * load(middle + c));
      scale_row(out, out, C, rms_scale(out, C, C));
      if (head.is_int8()) last_scales_[n] = quantize_row(out, C, last_bytes_.get() + n * ld);
    });
    const Activations last{last_[0], last_bytes_.get(), last_scales_.data(), last_.ld(), ld};
    const float cap = config.softcap;
    multiply(member, head, nullptr, last, count, {logits, static_cast<size_t>(V)}, [&](float* at, int n, f32x16 v) {
      const f32x16 capped = cap * tanh(v / cap);
      std::memcpy(at, &capped, std::min(kLanes, V - n) * sizeof(float));
    });
  }

  // Normed embedding, and a part of the one before it.
  void embed(int t, int token_id, int previous_id) {
    const int C = config.n_embd;
    const float* e = embedding + static_cast<size_t>(token_id) * C;
    float* x = x0_[t];
    std::copy(e, e + C, x);
    scale_row(x, x, C, rms_scale(x, C, C));
    if (smear_gate && previous_id >= 0) {
      float gate = 0;
      for (int c = 0; c < config.smear_channels; ++c) gate += smear_gate[c] * x[c];
      float* previous = h_[t];
      const float* from = embedding + static_cast<size_t>(previous_id) * C;
      std::copy(from, from + C, previous);
      const float part = smear_lambda * sigmoid(gate) * rms_scale(previous, C, C);
      for (int c = 0; c < C; c += kLanes) store(x + c, load(x + c) + part * load(previous + c));
    }
    std::copy(x, x + C, x_[t]);
  }

  void enter_layer(int i, int t) {
    const int C = config.n_embd;
    float *x = x_[t], *x0 = x0_[t];
    if (i == config.n_layer / 2 + 1) std::copy(x, x + C, middle_[t]);
    for (int c = 0; c < C; c += kLanes) store(x + c, resid_lambdas[i] * load(x + c) + x0_lambdas[i] * load(x0 + c));
    normalize(x, h_[t], layers[i].qkv.is_int8(), t);
  }

  void normalize(const float* x, float* h, bool is_int8, int t) {
    const int C = config.n_embd;
    scale_row(x, h, C, rms_scale(x, C, C));
    if (is_int8) scales_[t] = quantize_row(h, C, bytes_.get() + t * bytes_ld_);
  }

  template <typename T>
  void attend(Team::Member& member, int i, const LayerCache& cache, const std::vector<StepRow>& rows, float* scratch) {
    const Attention<T> attention(cache, windows[i], group());
    const Range own = member.own(static_cast<int>(tasks_.size()));
    member.share(static_cast<int>(tasks_.size()), [&](int n) {
      const AttentionTask& task = tasks_[n];
      const StepRow& row = rows[task.row];
      if (has_one_task_a_head(row)) {
        for (int t = row.first; t < row.first + row.count; ++t) remember<T>(cache, row, t, task.head);
      }
      const AttentionTask* next = own.contains(n) && own.contains(n + 1) ? &tasks_[n + 1] : nullptr;
      const NextKeys soon = next ? attention.keys_of(rows[next->row], *next) : NextKeys{};
      attention.run(row, task, soon, qkv_[0], qkv_.ld(), y_[0], y_.ld(), scratch);
    });
  }

  // Then that task itself puts its key and value into the block that it is about to read: no other waits for it.
  bool has_one_task_a_head(const StepRow& row) const { return row.count * group() <= kRows; }

  // The key and value of token t of the step.
  template <typename T>
  void remember(const LayerCache& cache, const StepRow& row, int t, int head) {
    const int D = config.head_dim;
    const float *k = qkv_[t] + (config.n_head + head) * D, *v = k + config.n_kv_head * D;
    cache.store<T>(row.slot, head, row.start + t - row.first, k, v);
  }

  int group() const { return config.n_head / config.n_kv_head; }

  // Keys and values into the cache, too, unless attend() does that: a block of it at a time, head by head, since each
  // token's key has a number in every line of the block.
  void prepare_attention(Team::Member& member, int i, const LayerCache& cache, const std::vector<StepRow>& rows,
                         const int32_t* token_ids) {
    const int size = M_ < 4 * kBlock ? kTokenRows : kBlock;
    member.share((M_ + size - 1) / size, [&](int task) {
      const int first = task * size, last = std::min(M_, first + size);
      for (int t = first; t < last; ++t) turn_heads(i, rows[token_row_[t]], t, token_ids[t]);
      for (int head = 0; head < config.n_kv_head; ++head) {
        for (int t = first; t < last; ++t) {
          const StepRow& row = rows[token_row_[t]];
          if (has_one_task_a_head(row)) continue;
          config.is_int8 ? remember<bf16>(cache, row, t, head) : remember<float>(cache, row, t, head);
        }
      }
    });
  }

  // Value embedding, rotary and norm of q and k.
  void turn_heads(int i, const StepRow& row, int t, int token_id) {
    const int D = config.head_dim, Hk = config.n_kv_head;
    const int position = row.start + t - row.first;
    float *q = qkv_[t], *k = q + config.n_head * D, *v = k + Hk * D;
    const LayerTables& tables = layers[i].tables;
    if (tables.value_embedding) {
      const float* embedded = tables.value_embedding + static_cast<size_t>(token_id) * Hk * D;
      for (int head = 0; head < Hk; ++head) {
        const float* weights = tables.value_gate + head * config.value_gate_channels;
        float gate = 0;
        for (int c = 0; c < config.value_gate_channels; ++c) gate += weights[c] * h_[t][c];
        gate = config.value_gate_range * sigmoid(gate);
        for (int d = head * D; d < (head + 1) * D; ++d) v[d] += gate * embedded[d];
      }
    }
    const float scale = config.qk_scale * config.qk_scale / std::sqrt(static_cast<float>(D));
    for (int head = 0; head < config.n_head; ++head) turn(q + head * D, position, scale);
    for (int head = 0; head < Hk; ++head) turn(k + head * D, position, 1.0f);
  }

  // Rotary, then norm, of one head's channels; all of it times `scale`.
  void turn(float* x, int position, float scale) const {
    const int half = config.head_dim / 2;
    const float *cosine = cosines + static_cast<size_t>(position) * half, *sine = sines + static_cast<size_t>(position) * half;
    f32x16 squares{};
    int d = 0;
    for (; d + kLanes <= half; d += kLanes) {
      const f32x16 a = load(x + d), b = load(x + d + half);
      const f32x16 left = a * load(cosine + d) + b * load(sine + d), right = b * load(cosine + d) - a * load(sine + d);
      store(x + d, left);
      store(x + d + half, right);
      squares += left * left + right * right;
    }
    float total = sum(squares);
    for (; d < half; ++d) {
      const float a = x[d], b = x[d + half];
      x[d] = a * cosine[d] + b * sine[d];
      x[d + half] = b * cosine[d] - a * sine[d];
      total += x[d] * x[d] + x[d + half] * x[d + half];
    }
    const float factor = scale / std::sqrt(total / static_cast<float>(2 * half) + 1.1920929e-07f);
    for (d = 0; d < 2 * half; ++d) x[d] *= factor;
  }

  static void scale_row(const float* x, float* out, int C, float factor) {
    for (int c = 0; c < C; c += kLanes) store(out + c, load(x + c) * factor);
  }

  template <typename Work>
  void each_token(Team::Member& member, const Work& work) {
    member.share((M_ + kTokenRows - 1) / kTokenRows, [&](int task) {
      for (int t = task * kTokenRows; t < std::min(M_, (task + 1) * kTokenRows); ++t) work(t);
    });
  }

  void quantize(Team::Member& member, const Linear& linear, const Rows& x) {
    if (!linear.is_int8()) return;
    const int K = linear.K();
    each_token(member, [&](int t) { scales_[t] = quantize_row(x[t], K, bytes_.get() + t * bytes_ld_); });
  }

  // `later`: the weight that is read next, after other phases.
  template <typename Finish>
  void multiply(Team::Member& member, const Linear& linear, const Linear* later, const Activations& x, int M, Outputs y,
                const Finish& finish) {
    const Range own = member.own(linear.num_tasks(M));
    const Range coming = later ? member.own(later->num_tasks(M)) : Range{0, 0};
    const Span first = coming.size() > 0 ? later->task_weights(coming.begin, M) : Span{};
    member.ahead = {first.begin, first.begin + std::min(kAheadBytes, first.bytes * coming.size())};
    member.share(linear.num_tasks(M), [&](int task) {
      const int next = linear.next_group(task, M);
      const Span soon = own.contains(task) && own.contains(next) ? linear.task_weights(next, M) : first;
      linear.run_task(task, M, x, soon, y, finish);
    });
  }

  Activations activations(const Rows& x) const { return {x[0], bytes_.get(), scales_.data(), x.ld(), bytes_ld_}; }
  static Outputs outputs(const Rows& y) { return {y[0], y.ld()}; }
  Activations hidden() const { return activations(h_); }

  Team team_;
  ThreadChoice threads_, copying_threads_;
  int M_ = 0, room_ = 0, wanted_room_ = 0;
  Rows x_, x0_, middle_, h_, y_, qkv_, wide_, last_;
  Buffer<uint8_t> bytes_, last_bytes_;
  size_t bytes_ld_ = 0, scratch_size_ = 0;
  std::vector<float> scales_, last_scales_;
  std::vector<int> token_row_;
  std::vector<AttentionTask> tasks_;
  Buffer<float> scratch_;
};

}  // namespace nanochat
