// Attention with the keys and values of earlier tokens, for operators that are made of several parts.
#pragma once
#include <vector>

#include "attention_heads.h"

namespace kogpt2 {

// The next tokens of one text: rows begin .. begin + count - 1 of a pass. They follow `position` tokens that slot `slot`
// of the caches has already.
struct Run {
  int64_t slot, position, count, begin;
};

// What `position` says of a pass of B x T tokens, see attention_cached.cc; refused unless the caches have room.
std::vector<Run> runs_of(const MXTensor& position, int64_t B, int64_t T, const MXTensor& key_cache);

// Which rows of a pass have a result: all, or the last one of each run.
enum class Rows { kAll, kLast };

// kogpt2_attention_step, see attention_cached.cc: qkv (tokens, 3 H D), caches (slots, H, capacity, D), out (tokens, H D)
// or, for Rows::kLast, (runs, H D).
void attend_runs(Precision precision, const float* qkv, int64_t H, int64_t D, const std::vector<Run>& runs,
                 MXTensor& key_cache, MXTensor& value_cache, Rows rows, float* out);

// Refuses shapes that do not fit each other: caches (B or more slots, H, capacity, D) in float32, or (.., 2 D) bytes of
// bfloat16, and `position`. B is the batch size of a pass in which all texts have the same length.
void settle_caches(ShapeInference& shapes, unsigned B, const AttentionSizes& s, size_t key, size_t value,
                   size_t position);

}  // namespace kogpt2
