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
// The same attention without copying the past: key_cache and value_cache (slots, H, capacity, D) hold the P earlier
// tokens of a text, and places P .. P + T - 1 are written in place. They are float32, or uint8 (slots, H, capacity, 2 D)
// with the bytes of values that are rounded to bfloat16. `position` says which text each token belongs to:
//   (1,) int32 or float32: B texts in slots 0 .. B - 1, all with P = position.
//   (R, 3) int32, for B = 1: the tokens are R runs, one after another; a row is (slot, P, tokens of the run). Slots
//   differ. What a run becomes depends on its own slot alone, to the last bit, whatever else is in the pass.
//
// For up to kFewQueries queries of a text (one query is the case that counts) everything is float32 in either precision,
// because the time is that of reading the cache.
#include "attention_cached.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "threads.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

constexpr int64_t kFewQueries = 2;  // from 3 on products are faster, measured with 1,023 keys
constexpr int64_t kQueryBlock = 64;

KOGPT2_INLINE float as_float(float value) { return value; }
KOGPT2_INLINE float as_float(uint16_t bfloat16) { return float_of(static_cast<uint32_t>(bfloat16) << 16); }
KOGPT2_INLINE void assign(float value, float& to) { to = value; }
KOGPT2_INLINE void assign(float value, uint16_t& to) { to = to_bfloat16(value); }

// Keys and values (slots, H, capacity, D).
template <typename T>
struct Cache {
  T *key, *value;
  int64_t H, capacity, D;

  int64_t offset(int64_t slot, int64_t head) const { return (slot * H + head) * capacity * D; }
};

// The queries, keys and values of a pass.
struct Packed {
  const float* qkv;
  int64_t H, D;

  int64_t C() const { return H * D; }
  const float* query(int64_t row, int64_t head) const { return qkv + row * 3 * C() + head * D; }
};

// Copies a head of the new tokens into the cache.
template <typename T>
void append(const Packed& packed, const Run& run, int64_t head, const Cache<T>& cache) {
  const int64_t D = cache.D, place = cache.offset(run.slot, head) + run.position * D;
  for (int64_t t = 0; t < run.count; ++t) {
    const float* const key = packed.query(run.begin + t, head) + packed.C();
    const float* const value = key + packed.C();
    T *const to_key = cache.key + place + t * D, *const to_value = cache.value + place + t * D;
#pragma omp simd
    for (int64_t i = 0; i < D; ++i) assign(key[i], to_key[i]);
#pragma omp simd
    for (int64_t i = 0; i < D; ++i) assign(value[i], to_value[i]);
  }
}

// Asks for `count` values before they are needed.
template <typename T>
inline void prefetch(const T* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(from + i);
}

// out (D,) = softmax(query key^T / sqrt(D)) value, for one query and `count` keys; `weights` has room for as many
// values. The keys and values of the next head are `next` values further on.
template <typename T>
void attend_one(const float* query, const T* key, const T* value, int64_t count, int64_t D, int64_t next,
                float* weights, float* out) {
  const int64_t fours = count / 4 * 4;
  for (int64_t k = 0; k < fours; k += 4) {  // four at a time: their sums do not wait for each other
    const T *const a = key + k * D, *const b = a + D, *const c = b + D, *const d = c + D;
    float dot_a = 0.0f, dot_b = 0.0f, dot_c = 0.0f, dot_d = 0.0f;
    prefetch(a + next, 4 * D);
#pragma omp simd reduction(+ : dot_a, dot_b, dot_c, dot_d)
    for (int64_t i = 0; i < D; ++i) {
      dot_a += query[i] * as_float(a[i]);
      dot_b += query[i] * as_float(b[i]);
      dot_c += query[i] * as_float(c[i]);
      dot_d += query[i] * as_float(d[i]);
    }
    weights[k] = dot_a, weights[k + 1] = dot_b, weights[k + 2] = dot_c, weights[k + 3] = dot_d;
  }
  for (int64_t k = fours; k < count; ++k) {
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < D; ++i) dot += query[i] * as_float(key[k * D + i]);
    weights[k] = dot;
  }
  const float factor = 1.0f / exponentials(weights, count, 1.0f / std::sqrt(static_cast<float>(D))).sum;
  std::fill_n(out, D, 0.0f);
  for (int64_t k = 0; k < fours; k += 4) {
    const T *const a = value + k * D, *const b = a + D, *const c = b + D, *const d = c + D;
    const float* const w = weights + k;
    prefetch(a + next, 4 * D);
#pragma omp simd
    for (int64_t i = 0; i < D; ++i) {
      out[i] += factor * ((w[0] * as_float(a[i]) + w[1] * as_float(b[i])) +
                          (w[2] * as_float(c[i]) + w[3] * as_float(d[i])));
    }
  }
  for (int64_t k = fours; k < count; ++k) {
    const float weight = factor * weights[k];
#pragma omp simd
    for (int64_t i = 0; i < D; ++i) out[i] += weight * as_float(value[k * D + i]);
  }
}

// One head's attention of the last `queries` tokens of a run, which are in the cache already; out_row is the row of `out`
// that the first of them gets.
template <typename T>
void attend_few(const Packed& packed, const Run& run, int64_t queries, int64_t head, const Cache<T>& cache,
                float* out, int64_t out_row) {
  const int64_t begin = cache.offset(run.slot, head), D = cache.D;
  Buffer<float> weights(run.position + run.count);
  for (int64_t t = run.count - queries; t < run.count; ++t, ++out_row) {
    attend_one(packed.query(run.begin + t, head), cache.key + begin, cache.value + begin, run.position + t + 1, D,
               cache.capacity * D, weights.data(), out + out_row * packed.C() + head * D);
  }
}

// The attention of a run of many tokens, which are in the cache already, in blocks of queries.
class ManyQueries {
 public:
  template <typename T>
  ManyQueries(Precision precision, const Packed& packed, const Run& run, const Cache<T>& cache)
      : precision_(precision), run_(run), C_(packed.C()), D_(packed.D),
        query_(precision, packed.query(run.begin, 0), HeadLayout::packed(1, run.count, packed.H, D_, 3 * C_)),
        key_(precision, cache.key + cache.offset(run.slot, 0), layout_of(run, cache)),
        value_(precision, cache.value + cache.offset(run.slot, 0), layout_of(run, cache)) {}

  static int64_t blocks(const Run& run) { return (run.count + kQueryBlock - 1) / kQueryBlock; }

  void attend(int64_t head, int64_t block, float* out) const {
    const int64_t begin = block * kQueryBlock, count = std::min(kQueryBlock, run_.count - begin);
    const int64_t N = run_.position + begin + count;
    const QueryBlock queries = {rows_of(query_.head(0, head), begin, count), rows_of(key_.head(0, head), 0, N),
                                rows_of(value_.head(0, head), 0, N), nullptr, 0};
    kogpt2::attend(precision_, queries, out + (run_.begin + begin) * C_ + head * D_, C_, nullptr);
  }

 private:
  template <typename T>
  static HeadLayout layout_of(const Run& run, const Cache<T>& cache) {
    return HeadLayout::split(1, cache.H, run.position + run.count, cache.D, cache.capacity);
  }

  Precision precision_;
  Run run_;
  int64_t C_, D_;
  Heads query_, key_, value_;
};

// What one thread does at a time: a head of a run of few queries, or a block of queries of a head.
struct Item {
  int64_t run, head;
  const ManyQueries* many;
  int64_t block;
};

template <typename T>
void attend_all(Precision precision, const Packed& packed, const std::vector<Run>& runs, const Cache<T>& cache,
                Rows rows, float* out) {
  const int64_t R = static_cast<int64_t>(runs.size()), H = packed.H;
  const auto is_few = [&](const Run& run) { return rows == Rows::kLast || run.count <= kFewQueries; };
  std::vector<Item> items;
  std::vector<std::unique_ptr<ManyQueries>> many;
  for (int64_t r = 0; r < R; ++r) {
    const Run& run = runs[r];
    if (is_few(run)) continue;
#pragma omp parallel for schedule(static)
    for (int64_t head = 0; head < H; ++head) append(packed, run, head, cache);
    many.push_back(std::make_unique<ManyQueries>(precision, packed, run, cache));
    // Late blocks see the most keys: begun first, they do not keep the other threads waiting in the end.
    for (int64_t block = ManyQueries::blocks(run) - 1; block >= 0; --block) {
      for (int64_t head = 0; head < H; ++head) items.push_back({r, head, many.back().get(), block});
    }
  }
  for (int64_t r = 0; r < R; ++r) {
    for (int64_t head = 0; is_few(runs[r]) && head < H; ++head) items.push_back({r, head, nullptr, 0});
  }
  const auto attend = [&](int64_t i) {
    const Item& item = items[i];
    const Run& run = runs[item.run];
    if (item.many) return item.many->attend(item.head, item.block, out);
    append(packed, run, item.head, cache);
    const bool last = rows == Rows::kLast;
    attend_few(packed, run, last ? 1 : run.count, item.head, cache, out, last ? item.run : run.begin);
  };
  int64_t products = 0, numbers = 0;
  for (const Run& run : runs) {
    const int64_t read = 2 * (run.position + run.count) * H * packed.D;  // of keys and values
    products += run.count * read;
    numbers += read;
  }
  for_each_in_parallel(static_cast<int64_t>(items.size()), attend, worth_threads(products, numbers));
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
    const unsigned past = shapes.input(kPastKey, 4)[2], H = static_cast<unsigned>(s.H), D = static_cast<unsigned>(s.D);
    shapes.settle(kPastKey, {qkv[0], H, past, D});
    shapes.settle(kPastValue, {qkv[0], H, past, D});
    shapes.output(kOut) = with_last(qkv, static_cast<unsigned>(s.C));
    shapes.output(kNewKey) = shapes.output(kNewValue) = {qkv[0], H, past + qkv[1], D};
  }

  void forward(const ForwardCall& call) const {
    const AttentionSizes s = attention_sizes(call.input(kQkv), num_heads);
    const int64_t P = call.input(kPastKey).shape[2], N = P + s.T;
    const Cache<float> cache = {floats(call.output(kNewKey)), floats(call.output(kNewValue)), s.H, N, s.D};
    const float* const past_key = floats(call.input(kPastKey));
    const float* const past_value = floats(call.input(kPastValue));
#pragma omp parallel for schedule(static)
    for (int64_t head = 0; head < s.B * s.H; ++head) {
      std::copy_n(past_key + head * P * s.D, P * s.D, cache.key + head * N * s.D);
      std::copy_n(past_value + head * P * s.D, P * s.D, cache.value + head * N * s.D);
    }
    std::vector<Run> runs;
    for (int64_t b = 0; b < s.B; ++b) runs.push_back({b, P, s.T, b * s.T});
    attend_all(precision, {floats(call.input(kQkv)), s.H, s.D}, runs, cache, Rows::kAll, floats(call.output(kOut)));
  }
};

struct AttentionStep : AttentionForGeneration {
  enum Input { kQkv, kKeyCache, kValueCache, kPosition };
  enum Output { kOut };
  using AttentionForGeneration::AttentionForGeneration;

  Arrays inputs() const { return {{"qkv", 'f'}, {"key_cache", 'w'}, {"value_cache", 'w'}, {"position", 'n'}}; }
  Arrays outputs() const { return {{"out", 'f'}}; }
  std::vector<int> written_inputs() const { return {kKeyCache, kValueCache}; }

  void shape(ShapeInference& shapes) const {
    const Shape qkv = shapes.input(kQkv, 3);
    const AttentionSizes s = attention_sizes(qkv, num_heads);
    settle_caches(shapes, qkv[0], s, kKeyCache, kValueCache, kPosition);
    shapes.output(kOut) = with_last(qkv, static_cast<unsigned>(s.C));
  }

  void forward(const ForwardCall& call) const {
    const AttentionSizes s = attention_sizes(call.input(kQkv), num_heads);
    const std::vector<Run> runs = runs_of(call.input(kPosition), s.B, s.T, call.input(kKeyCache));
    attend_runs(precision, floats(call.input(kQkv)), s.H, s.D, runs, call.input(kKeyCache), call.input(kValueCache),
                Rows::kAll, floats(call.output(kOut)));
  }
};

void check_room(int64_t P, int64_t count, int64_t capacity) {
  if (P < 0 || P + count > capacity) {
    fail("position ", P, ", from which ", count, " tokens are written, does not fit a cache for ", capacity);
  }
}

// Runs that add up to M tokens, each in a slot of its own.
std::vector<Run> listed_runs(const MXTensor& position, int64_t M, int64_t slots, int64_t capacity) {
  if (position.dtype != mxnet::ext::kInt32) fail("runs are int32");
  const int32_t* const rows = static_cast<const int32_t*>(position.data_ptr);
  std::vector<Run> runs;
  std::vector<bool> used(static_cast<size_t>(slots));
  int64_t begin = 0;
  for (int64_t r = 0; r < position.shape[0]; ++r) {
    const Run run = {rows[3 * r], rows[3 * r + 1], rows[3 * r + 2], begin};
    if (run.slot < 0 || run.slot >= slots) fail("run ", r, " is for slot ", run.slot, " of ", slots);
    if (used[run.slot]) fail("two runs are for slot ", run.slot);
    used[run.slot] = true;
    if (run.count < 1) fail("run ", r, " has ", run.count, " tokens");
    check_room(run.position, run.count, capacity);
    runs.push_back(run);
    begin += run.count;
  }
  if (begin != M) fail("runs have ", begin, " tokens together, the pass has ", M);
  return runs;
}

}  // namespace

std::vector<Run> runs_of(const MXTensor& position, int64_t B, int64_t T, const MXTensor& key_cache) {
  const int64_t slots = key_cache.shape[0], capacity = key_cache.shape[2];
  if (position.shape.size() == 2) return listed_runs(position, B * T, slots, capacity);
  const bool is_int = position.dtype == mxnet::ext::kInt32;
  const int64_t P = is_int ? *static_cast<const int32_t*>(position.data_ptr)
                           : static_cast<int64_t>(*static_cast<const float*>(position.data_ptr));
  check_room(P, T, capacity);
  std::vector<Run> runs;
  for (int64_t b = 0; b < B; ++b) runs.push_back({b, P, T, b * T});
  return runs;
}

void attend_runs(Precision precision, const float* qkv, int64_t H, int64_t D, const std::vector<Run>& runs,
                 MXTensor& key_cache, MXTensor& value_cache, Rows rows, float* out) {
  const Packed packed = {qkv, H, D};
  const int64_t capacity = key_cache.shape[2];
  const bool in_bytes = key_cache.dtype == mxnet::ext::kUint8;
  if (value_cache.dtype != key_cache.dtype || key_cache.shape[3] != (in_bytes ? 2 * D : D)) {
    fail("key_cache and value_cache are both float32 with ", D, " columns, or both uint8 with ", 2 * D);
  }
  if (in_bytes) {
    const Cache<uint16_t> cache = {key_cache.data<uint16_t>(), value_cache.data<uint16_t>(), H, capacity, D};
    attend_all(precision, packed, runs, cache, rows, out);
  } else {
    const Cache<float> cache = {floats(key_cache), floats(value_cache), H, capacity, D};
    attend_all(precision, packed, runs, cache, rows, out);
  }
}

void settle_caches(ShapeInference& shapes, unsigned B, const AttentionSizes& s, size_t key, size_t value,
                   size_t position) {
  const Shape given = shapes.input(key, 4), listed = shapes.input(position);
  const bool is_listed = listed.size() == 2;
  if (!is_listed) shapes.settle(position, {1});
  if (is_listed && listed[1] != 3) shapes.refuse(position, "3 columns: slot, position, tokens");
  if (is_listed && B != 1) fail("runs are for a batch size of 1, not of ", B);
  const unsigned H = static_cast<unsigned>(s.H), D = static_cast<unsigned>(s.D);
  // Twice the columns are bytes of bfloat16, if the type says so: attend_runs() looks at that.
  const Shape cache = {is_listed ? given[0] : B, H, given[2], given[3] == 2 * D ? 2 * D : D};
  shapes.settle(key, cache);
  shapes.settle(value, cache);
}

KOGPT2_OPERATOR(kogpt2_attention_cached, AttentionCached);
KOGPT2_OPERATOR(kogpt2_attention_step, AttentionStep);

}  // namespace kogpt2
