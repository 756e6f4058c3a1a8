// Attention with the keys and values of earlier tokens, for generation. There is no dropout and no gradient.
//
// kogpt2_attention_cached(qkv, past_key, past_value; num_heads, precision) -> out, new_key, new_value
//
//   new_key = past_key, then k    new_value = past_value, then v    out = softmax(q new_key^T / sqrt(D)) new_value
//
// for each head. qkv (B, T, 3 C) as in kogpt2_attention, the new tokens'; past_key, past_value (B, H, P, D), P at
// least 1; out (B, T, C); new_key, new_value (B, H, P + T, D). Query i sees keys 0 .. P + i.
//
// kogpt2_attention_step(qkv, key_cache, value_cache, position; num_heads, precision) -> out
//
// The same with P = position and without copying the past: key_cache, value_cache (B, H, capacity, D) hold P tokens,
// and places P .. P + T - 1 are written, in place. position: one int32 (or float32), from 0.
//
// For up to kFewQueries queries, one being the case that counts, everything is float32 in either precision: the time is
// that of reading the cache.
#include <algorithm>
#include <cmath>

#include "attention_cached.h"

namespace kogpt2 {
namespace {

constexpr int64_t kFewQueries = 2;  // from 3 on products are faster, measured with 1,023 keys
constexpr int64_t kQueryBlock = 64;

// Keys and values of P past and T new tokens, the heads `capacity` rows apart.
struct Cache {
  float *key, *value;
  int64_t P, capacity;
};

// rows [P, P + T) of a head = the new tokens' rows, which are `stride` apart.
void append(const float* from, int64_t stride, const AttentionSizes& s, const Cache& cache, int64_t head, float* to) {
  float* place = to + (head * cache.capacity + cache.P) * s.D;
  for (int64_t t = 0; t < s.T; ++t, place += s.D) std::copy_n(from + t * stride, s.D, place);
}

// The new tokens of all heads into the cache.
void append(const float* qkv, const AttentionSizes& s, const Cache& cache) {
#pragma omp parallel for schedule(static)
  for (int64_t head = 0; head < s.B * s.H; ++head) {
    const float* const query = qkv + head / s.H * s.T * 3 * s.C + head % s.H * s.D;
    append(query + s.C, 3 * s.C, s, cache, head, cache.key);
    append(query + 2 * s.C, 3 * s.C, s, cache, head, cache.value);
  }
}

// Asks for `count` floats before they are needed.
inline void prefetch(const float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(from + i);
}

// out (D,) = softmax(query key^T / sqrt(D)) value, of one query and `count` keys; `weights` has room for them. `next`
// floats further on lie the keys and values of the head after this one.
void attend_one(const float* query, const float* key, const float* value, int64_t count, int64_t D, int64_t next,
                float* weights, float* out) {
  const int64_t fours = count / 4 * 4;
  for (int64_t k = 0; k < fours; k += 4) {  // four at a time: their sums do not wait for each other
    const float *const a = key + k * D, *const b = a + D, *const c = b + D, *const d = c + D;
    float dot_a = 0.0f, dot_b = 0.0f, dot_c = 0.0f, dot_d = 0.0f;
    prefetch(a + next, 4 * D);
#pragma omp simd reduction(+ : dot_a, dot_b, dot_c, dot_d)
    for (int64_t i = 0; i < D; ++i) {
      dot_a += query[i] * a[i];
      dot_b += query[i] * b[i];
      dot_c += query[i] * c[i];
      dot_d += query[i] * d[i];
    }
    weights[k] = dot_a, weights[k + 1] = dot_b, weights[k + 2] = dot_c, weights[k + 3] = dot_d;
  }
  for (int64_t k = fours; k < count; ++k) {
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < D; ++i) dot += query[i] * key[k * D + i];
    weights[k] = dot;
  }
  const float factor = 1.0f / exponentials(weights, count, 1.0f / std::sqrt(static_cast<float>(D))).sum;
  std::fill_n(out, D, 0.0f);
  for (int64_t k = 0; k < fours; k += 4) {
    const float *const a = value + k * D, *const b = a + D, *const c = b + D, *const d = c + D;
    const float *const w = weights + k;
    prefetch(a + next, 4 * D);
#pragma omp simd
    for (int64_t i = 0; i < D; ++i) out[i] += factor * ((w[0] * a[i] + w[1] * b[i]) + (w[2] * c[i] + w[3] * d[i]));
  }
  for (int64_t k = fours; k < count; ++k) {
    const float weight = factor * weights[k];
#pragma omp simd
    for (int64_t i = 0; i < D; ++i) out[i] += weight * value[k * D + i];
  }
}

void attend_few(const float* qkv, const AttentionSizes& s, const Cache& cache, float* out) {
  const int64_t N = cache.P + s.T;
  for_each_in_parallel(s.B * s.H, [&](int64_t head) {
    const int64_t b = head / s.H, h = head % s.H, begin = head * cache.capacity * s.D;
    Buffer<float> weights(N);
    for (int64_t t = 0; t < s.T; ++t) {
      const int64_t token = b * s.T + t;
      attend_one(qkv + token * 3 * s.C + h * s.D, cache.key + begin, cache.value + begin, cache.P + t + 1, s.D,
                 cache.capacity * s.D, weights.data(), out + token * s.C + h * s.D);
    }
  });
}

void attend_many(Precision precision, const float* qkv, const AttentionSizes& s, const Cache& cache, float* out) {
  const Heads query(precision, qkv, HeadLayout::packed(s.B, s.T, s.H, s.D, 3 * s.C));
  const HeadLayout layout = HeadLayout::split(s.B, s.H, cache.P + s.T, s.D, cache.capacity);
  const Heads key(precision, cache.key, layout), value(precision, cache.value, layout);
  const int64_t blocks = (s.T + kQueryBlock - 1) / kQueryBlock;
  for_each_in_parallel(s.B * s.H * blocks, [&](int64_t item) {
    const int64_t b = item / blocks / s.H, h = item / blocks % s.H, begin = item % blocks * kQueryBlock;
    const int64_t count = std::min(kQueryBlock, s.T - begin), N = cache.P + begin + count;
    const QueryBlock block = {rows_of(query.head(b, h), begin, count), rows_of(key.head(b, h), 0, N),
                              rows_of(value.head(b, h), 0, N), nullptr, 0};
    attend(block, out + (b * s.T + begin) * s.C + h * s.D, s.C, nullptr);
  });
}

// Registered all the same: MXNet hybridizes no operator without a backward pass, not even for inference.
void no_gradient(const Attributes&, Tensors&, Tensors&) {
  fail("attention with cached keys is for generation and has no gradient; train with kogpt2_attention");
}

void append_and_attend(Precision precision, const float* qkv, const AttentionSizes& s, const Cache& cache, float* out) {
  append(qkv, s, cache);
  if (s.T <= kFewQueries) {
    attend_few(qkv, s, cache, out);
  } else {
    attend_many(precision, qkv, s, cache, out);
  }
}

// ---- kogpt2_attention_cached ----------------------------------------------------------------------------------------

void cached_shape(const Attributes& attributes, Shapes& in, Shapes& out) {
  const AttentionSizes s = attention_sizes(attributes, in[0]);
  expect_axes("past_key", in[1], 4);
  Shape states = {in[0][0], static_cast<unsigned>(s.H), in[1][2], static_cast<unsigned>(s.D)};
  expect_shape("past_key", in[1], states);
  expect_shape("past_value", in[2], states);
  states[2] += in[0][1];
  out[0] = {in[0][0], in[0][1], static_cast<unsigned>(s.C)};
  out[1] = out[2] = states;
}

void cached_forward(const Attributes& attributes, Tensors& in, Tensors& out) {
  const AttentionSizes s = attention_sizes(attributes, in[0]);
  const int64_t P = in[1].shape[2], N = P + s.T;
  const Cache cache = {floats(out[1]), floats(out[2]), P, N};
  const float* const past_key = floats(in[1]);
  const float* const past_value = floats(in[2]);
#pragma omp parallel for schedule(static)
  for (int64_t head = 0; head < s.B * s.H; ++head) {
    std::copy_n(past_key + head * P * s.D, P * s.D, cache.key + head * N * s.D);
    std::copy_n(past_value + head * P * s.D, P * s.D, cache.value + head * N * s.D);
  }
  append_and_attend(precision_of(attributes), floats(in[0]), s, cache, floats(out[0]));
}

// ---- kogpt2_attention_step ------------------------------------------------------------------------------------------

void step_shape(const Attributes& attributes, Shapes& in, Shapes& out) {
  const AttentionSizes s = attention_sizes(attributes, in[0]);
  expect_axes("key_cache", in[1], 4);
  const Shape cache = {in[0][0], static_cast<unsigned>(s.H), in[1][2], static_cast<unsigned>(s.D)};
  expect_shape("key_cache", in[1], cache);
  expect_shape("value_cache", in[2], cache);
  expect_shape("position", in[3], {1});
  out[0] = {in[0][0], in[0][1], static_cast<unsigned>(s.C)};
}

void step_forward(const Attributes& attributes, Tensors& in, Tensors& out) {
  const AttentionSizes s = attention_sizes(attributes, in[0]);
  attention_step(precision_of(attributes), floats(in[0]), s, in[1], in[2], in[3], floats(out[0]));
}

MXReturnValue step_mutates(const AttributeMap&, std::vector<int>* inputs) {
  *inputs = {1, 2};
  return mxnet::ext::MX_SUCCESS;
}

}  // namespace

void attention_step(Precision precision, const float* qkv, const AttentionSizes& s, MXTensor& key_cache,
                    MXTensor& value_cache, MXTensor& position, float* out) {
  const int64_t capacity = key_cache.shape[2];
  const bool is_int = position.dtype == mxnet::ext::kInt32;
  const int64_t P = is_int ? *position.data<int32_t>() : static_cast<int64_t>(*position.data<float>());
  if (P < 0 || P + s.T > capacity) {
    fail("position ", P, ", from which ", s.T, " tokens are written, does not fit a cache for ", capacity);
  }
  append_and_attend(precision, qkv, s, {floats(key_cache), floats(value_cache), P, capacity}, out);
}

KOGPT2_OPERATOR(kogpt2_attention_cached, 3, 3, 0, cached_shape, cached_forward, no_gradient);
KOGPT2_OPERATOR(kogpt2_attention_step, 4, 1, 1u << 3, step_shape, step_forward, no_gradient)
    .setMutateInputs(step_mutates);

}  // namespace kogpt2
