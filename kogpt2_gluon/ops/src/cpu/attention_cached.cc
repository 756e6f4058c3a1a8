// Attention with the keys and values of earlier tokens, for generation. There is no dropout and no gradient.
//
// kogpt2_attention_cached(qkv, past_key, past_value; num_heads, precision) -> out, new_key, new_value
//
//   new_key = past_key, then k    new_value = past_value, then v    out = softmax(q new_key^T / sqrt(D)) new_value
//
// for each head. qkv (B, T, 3 C), of the new tokens, is as in kogpt2_attention; past_key, past_value (B, H, P, D), with
// P at least 1; out (B, T, C); new_key, new_value (B, H, P + T, D). Query i sees keys 0 .. P + i.
//
// kogpt2_attention_step(qkv, key_cache, value_cache, position; num_heads, precision) -> out
//
// The same attention with P = position, but without copying the past: key_cache and value_cache (B, H, capacity, D)
// hold P tokens, and places P .. P + T - 1 are written in place. position is one int32 (or float32), counted from 0.
//
// For up to kFewQueries queries (one query is the case that counts) everything is float32 in either precision, because
// the time is that of reading the cache.
#include <algorithm>
#include <cmath>

#include "attention_cached.h"

namespace kogpt2 {
namespace {

constexpr int64_t kFewQueries = 2;  // from 3 on products are faster, measured with 1,023 keys
constexpr int64_t kQueryBlock = 64;

// Keys and values of P past and T new tokens; the heads are `capacity` rows apart.
struct Cache {
  float *key, *value;
  int64_t P, capacity;
};

// Copies the rows of the new tokens, which are `stride` apart, to rows [P, P + T) of a head.
void append(const float* from, int64_t stride, const AttentionSizes& s, const Cache& cache, int64_t head, float* to) {
  float* place = to + (head * cache.capacity + cache.P) * s.D;
  for (int64_t t = 0; t < s.T; ++t, place += s.D) std::copy_n(from + t * stride, s.D, place);
}

// Copies the new tokens of all heads into the cache.
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

// out (D,) = softmax(query key^T / sqrt(D)) value, for one query and `count` keys; `weights` has room for as many
// values. The keys and values of the next head are `next` floats further on.
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
    attend(precision, block, out + (b * s.T + begin) * s.C + h * s.D, s.C, nullptr);
  });
}

void append_and_attend(Precision precision, const float* qkv, const AttentionSizes& s, const Cache& cache, float* out) {
  append(qkv, s, cache);
  if (s.T <= kFewQueries) {
    attend_few(qkv, s, cache, out);
  } else {
    attend_many(precision, qkv, s, cache, out);
  }
}

// ---- the operators --------------------------------------------------------------------------------------------------

struct AttentionForGeneration {
  int64_t num_heads;
  Precision precision;

  explicit AttentionForGeneration(const Attributes& attributes)
      : num_heads(attributes.integer("num_heads", 1)), precision(precision_of(attributes)) {}

  // This replaces NoGradient, to name the operator that has a gradient.
  void backward(const BackwardCall&) const {
    fail("attention with cached keys is for generation and has no gradient; train with kogpt2_attention");
  }
};

struct AttentionCached : AttentionForGeneration {
  enum Input { kQkv, kPastKey, kPastValue };
  enum Output { kOut, kNewKey, kNewValue };
  using AttentionForGeneration::AttentionForGeneration;

  Arrays inputs() const { return {{"qkv", 'f'}, {"past_key", 'f'}, {"past_value", 'f'}}; }
  Arrays outputs() const { return {{"out", 'f'}, {"new_key", 'f'}, {"new_value", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape qkv = shapes.input(kQkv, 3);
    const AttentionSizes s = attention_sizes(qkv, num_heads);
    Shape states = settle_caches(shapes, qkv[0], s, kPastKey, kPastValue);
    states[2] += qkv[1];
    shapes.output(kOut) = with_last(qkv, static_cast<unsigned>(s.C));
    shapes.output(kNewKey) = shapes.output(kNewValue) = states;
  }

  void forward(const ForwardCall& call) const {
    const AttentionSizes s = attention_sizes(call.input(kQkv), num_heads);
    const int64_t P = call.input(kPastKey).shape[2], N = P + s.T;
    const Cache cache = {floats(call.output(kNewKey)), floats(call.output(kNewValue)), P, N};
    const float* const past_key = floats(call.input(kPastKey));
    const float* const past_value = floats(call.input(kPastValue));
#pragma omp parallel for schedule(static)
    for (int64_t head = 0; head < s.B * s.H; ++head) {
      std::copy_n(past_key + head * P * s.D, P * s.D, cache.key + head * N * s.D);
      std::copy_n(past_value + head * P * s.D, P * s.D, cache.value + head * N * s.D);
    }
    append_and_attend(precision, floats(call.input(kQkv)), s, cache, floats(call.output(kOut)));
  }
};

struct AttentionStep : AttentionForGeneration {
  enum Input { kQkv, kKeyCache, kValueCache, kPosition };
  enum Output { kOut };
  using AttentionForGeneration::AttentionForGeneration;

  Arrays inputs() const { return {{"qkv", 'f'}, {"key_cache", 'f'}, {"value_cache", 'f'}, {"position", 'n'}}; }
  Arrays outputs() const { return {{"out", 'f'}}; }
  std::vector<int> written_inputs() const { return {kKeyCache, kValueCache}; }

  void shape(ShapeInference& shapes) const {
    const Shape qkv = shapes.input(kQkv, 3);
    const AttentionSizes s = attention_sizes(qkv, num_heads);
    settle_caches(shapes, qkv[0], s, kKeyCache, kValueCache);
    shapes.settle(kPosition, {1});
    shapes.output(kOut) = with_last(qkv, static_cast<unsigned>(s.C));
  }

  void forward(const ForwardCall& call) const {
    attention_step(precision, floats(call.input(kQkv)), attention_sizes(call.input(kQkv), num_heads),
                   call.input(kKeyCache), call.input(kValueCache), call.input(kPosition), floats(call.output(kOut)));
  }
};

}  // namespace

Shape settle_caches(ShapeInference& shapes, unsigned batch, const AttentionSizes& s, size_t key, size_t value) {
  const unsigned capacity = shapes.input(key, 4)[2];
  const Shape cache = {batch, static_cast<unsigned>(s.H), capacity, static_cast<unsigned>(s.D)};
  shapes.settle(key, cache);
  shapes.settle(value, cache);
  return cache;
}

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

KOGPT2_OPERATOR(kogpt2_attention_cached, AttentionCached);
KOGPT2_OPERATOR(kogpt2_attention_step, AttentionStep);

}  // namespace kogpt2
