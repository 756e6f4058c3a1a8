// Attention with the keys and values of earlier tokens, for operators that are made of several parts.
#pragma once
#include "attention_heads.h"

namespace kogpt2 {

// kogpt2_attention_step, see attention_cached.cc: qkv (B, T, 3 C), caches (B, H, capacity, D), position (1,), out (B,
// T, C).
void attention_step(Precision precision, const float* qkv, const AttentionSizes& s, MXTensor& key_cache,
                    MXTensor& value_cache, MXTensor& position, float* out);

// Settles the shapes of two inputs, a cache of keys and one of values: (batch, H, capacity, D), which it returns.
Shape settle_caches(ShapeInference& shapes, unsigned batch, const AttentionSizes& s, size_t key, size_t value);

}  // namespace kogpt2
