// What library.py calls. Every function but the two that free gives 0, or a pointer; -1 or null says that memory or
// threads ran out, -2 that an argument lies out of range: then nothing was done. Weights and tables are of the sizes that
// the configuration says, and a cache is no longer than the tables of positions: model.py sees to that.

#include <system_error>

#include "model.h"

using namespace nanochat;

namespace {
constexpr int kNoMemory = -1, kOutOfRange = -2;

template <typename T, typename Make>
T* made(const Make& make) {
  try {
    return make();
  } catch (const std::bad_alloc&) {
    return nullptr;
  } catch (const std::system_error&) {
    return nullptr;
  }
}

template <typename Copy>
int copied(const KVCache& cache, int slot, const KeptBlock* blocks, int num_blocks, const Copy& copy) {
  try {
    const std::vector<KeptBlock> all(blocks, blocks + num_blocks);
    for (const auto& one : all)
      if (!cache.has_block(slot, one.block) || one.place < 0) return kOutOfRange;
    copy(all);
    return 0;
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  }
}
}  // namespace

extern "C" {

Model* nanochat_model_new(const Config* config, const int32_t* windows) {
  return made<Model>([&] { return new Model(*config, windows); });
}
void nanochat_model_free(Model* model) { delete model; }

int nanochat_model_set_matrix(Model* model, int layer, Matrix which, const float* weight, int N, int K) {
  try {
    Linear& linear = model->matrix(layer, which);
    // New weights of the same model take the place of the old ones.
    if (linear.N() == 0) linear = Linear(N, K, model->config.is_int8, model->weight_memory);
    if (linear.N() != N || linear.K() != K) return kOutOfRange;
    linear.pack(weight);
    return 0;
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  }
}

int nanochat_model_set_tables(Model* model, const float* embedding, const float* smear_gate, const float* cosines,
                              const float* sines) {
  model->embedding = embedding;
  model->smear_gate = smear_gate;
  model->cosines = cosines;
  model->sines = sines;
  return 0;
}

int nanochat_model_set_layer_tables(Model* model, int layer, const float* value_gate, const float* value_embedding) {
  model->layers[layer].tables = {value_gate, value_embedding};
  return 0;
}

int nanochat_model_set_scalars(Model* model, const float* resid_lambdas, const float* x0_lambdas, float smear_lambda,
                               float backout_lambda) {
  model->resid_lambdas.assign(resid_lambdas, resid_lambdas + model->config.n_layer);
  model->x0_lambdas.assign(x0_lambdas, x0_lambdas + model->config.n_layer);
  model->smear_lambda = smear_lambda;
  model->backout_lambda = backout_lambda;
  return 0;
}

uint64_t nanochat_model_weight_bytes(const Model* model) { return model->weight_bytes(); }

KVCache* nanochat_cache_new(const Model* model, int num_slots, int max_len, int max_step) {
  return made<KVCache>([&] { return new KVCache(model->new_cache(num_slots, max_len, max_step)); });
}
void nanochat_cache_free(KVCache* cache) { delete cache; }
uint64_t nanochat_cache_block_bytes(const KVCache* cache) { return cache->block_bytes(); }
uint64_t nanochat_cache_bytes(const KVCache* cache) { return cache->bytes(); }

int nanochat_cache_copy_slot(const KVCache* cache, int source, int target, int length) {
  const bool is_right = cache->has_slot(source) && cache->has_slot(target) && length >= 0 && length <= cache->max_len();
  if (!is_right) return kOutOfRange;
  cache->copy_slot(source, target, length);
  return 0;
}

// blocks: (num_blocks,), the first ones of the slot first. kept: room for as many as their places ask for.
int nanochat_save_blocks(Model* model, const KVCache* cache, int slot, const KeptBlock* blocks, int num_blocks, uint8_t* kept) {
  return copied(*cache, slot, blocks, num_blocks, [&](const auto& all) { model->save_blocks(*cache, slot, all, kept); });
}
int nanochat_restore_blocks(Model* model, const KVCache* cache, int slot, const KeptBlock* blocks, int num_blocks,
                            const uint8_t* kept) {
  return copied(*cache, slot, blocks, num_blocks, [&](const auto& all) { model->restore_blocks(*cache, slot, all, kept); });
}

// rows: (num_rows, 3) of slot, start and count; M tokens in all of them.
int nanochat_step(Model* model, const KVCache* cache, const int32_t* rows, int num_rows, int M, const int32_t* token_ids,
                  const int32_t* previous_ids, const int32_t* wanted, int num_wanted, float* logits) {
  try {
    std::vector<StepRow> step;
    int first = 0;
    for (int b = 0; b < num_rows; ++b) {
      step.push_back({rows[3 * b], rows[3 * b + 1], rows[3 * b + 2], first});
      first += rows[3 * b + 2];
    }
    const std::vector<int> places(wanted, wanted + num_wanted);
    if (!model->fits(*cache, step, M, token_ids, previous_ids, places)) return kOutOfRange;
    model->step(*cache, step, token_ids, previous_ids, places, logits);
    return 0;
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  }
}

}  // extern "C"
