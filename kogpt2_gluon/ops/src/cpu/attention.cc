// kogpt2_attention(qkv, seed; num_heads, p, site, precision, req) -> out, log_sum_exp
//
//   weight = softmax(q k^T / sqrt(D)) over the keys that are not later than the query
//   out = (mask * weight) v
//
// for each head h of each batch element b. qkv (B, T, 3 C) has the queries, then the keys, then the values, with C = H
// D; head h is in columns h D .. of each. out (B, T, C). log_sum_exp (B, H, T) has the logarithms of the softmax's
// sums. seed (64,). mask is 0 or 1 / (1 - p); WeightMask defines its elements.
// No (T, T) matrix is kept: the forward pass goes through blocks of queries, the backward pass through blocks of keys.
// Backward, with g = d out, for each (b, h), with w = exp(q k^T / sqrt(D) - log_sum_exp) and delta = the row sums of
// g out (Dao et al., "FlashAttention", 2022):
//   d v = (mask * w)^T g
//   d s = w (mask * (g v^T) - delta) / sqrt(D)    d q = d s k    d k = d s^T q
// Saved: qkv, out, log_sum_exp. One thread computes a head's gradients, so they do not depend on the number of threads.
#include <algorithm>
#include <cmath>

#include "attention_heads.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

// Each is the faster of 64 and 128, measured with 12 heads of 64 columns and 128 to 1,024 queries. Shorter blocks
// compute less of what the causal mask hides, longer ones make fewer and better products.
constexpr int64_t kKeyBlock = 128;
int64_t query_block(Precision precision) { return element_of(precision) == Element::kBfloat16 ? 128 : 64; }

// ---- backward, of one head ------------------------------------------------------------------------------------------

// Copies or adds the rows of `from` (rows, D) to the rows of `to`, which are `stride` apart.
void store(const float* from, int64_t rows, int64_t D, float* to, int64_t stride, bool add) {
  for (int64_t r = 0; r < rows; ++r, from += D, to += stride) {
    if (add) {
#pragma omp simd
      for (int64_t i = 0; i < D; ++i) to[i] += from[i];
    } else {
      std::copy_n(from, D, to);
    }
  }
}

// dots[t] = the sum of row t of a b. Both (T, D), rows `stride` apart.
void row_dots(const float* a, const float* b, int64_t T, int64_t D, int64_t stride, float* dots) {
  for (int64_t t = 0; t < T; ++t, a += stride, b += stride) {
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < D; ++i) dot += a[i] * b[i];
    dots[t] = dot;
  }
}

// The places of a head's queries, keys and values in the gradient of the packed array: (T, D) each, rows `stride`
// apart.
struct HeadGradient {
  float *query, *key, *value;
  int64_t stride;
  bool add;
};

// The backward pass of one head, by one thread. Products are written to memory of its own, where rows are next to each
// other (oneDNN is up to twice as fast there), and copied from there into the gradient.
class HeadBackward {
 public:
  // The matrices are (T, D); gradient is g. log_sum_exp and delta are (T,). first_row is a row of the mask.
  Matrix query, key, value, gradient;
  const float *log_sum_exp, *delta;
  int64_t first_row;
  Precision precision;

  void run(WeightMask& mask, const HeadGradient& to) const {
    const int64_t T = query.rows, D = query.columns;
    Buffer<float> d_query(T * D), sums(kKeyBlock * D);
    for (int64_t begin = 0; begin < T; begin += kKeyBlock) {
      const int64_t rows = T - begin, columns = std::min(kKeyBlock, rows);  // earlier queries see none of these keys
      Panel weights(precision, rows, columns), d_scores(precision, rows, columns);
      differentiate_softmax(begin, mask, weights, d_scores);
      matmul(weights.matrix().transposed(), rows_of(gradient, begin, rows), sums.data());
      store(sums.data(), columns, D, to.value + begin * to.stride, to.stride, to.add);
      matmul(d_scores.matrix().transposed(), rows_of(query, begin, rows), sums.data());
      store(sums.data(), columns, D, to.key + begin * to.stride, to.stride, to.add);
      // All queries see the first block of keys, so the first product writes and the others add.
      matmul(d_scores.matrix(), rows_of(key, begin, columns), d_query.data() + begin * D, 0, begin > 0);
    }
    store(d_query.data(), T, D, to.query, to.stride, to.add);
  }

 private:
  // The weights after dropout, and the gradients of the scores, for all queries from `begin` on and a block of keys.
  void differentiate_softmax(int64_t begin, WeightMask& mask, Panel& weights, Panel& d_scores) const {
    const int64_t rows = weights.rows(), columns = weights.columns();
    const float scale = 1.0f / std::sqrt(static_cast<float>(query.columns));
    matmul(rows_of(query, begin, rows), rows_of(key, begin, columns).transposed(), weights.row(0));
    matmul(rows_of(gradient, begin, rows), rows_of(value, begin, columns).transposed(), d_scores.row(0));
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t visible = std::min(columns, r + 1), padded = std::min(columns, whole_vectors(visible));
      const float* const multiplier = mask.row(first_row + begin + r, begin, padded);
      const float row_log_sum_exp = log_sum_exp[begin + r], row_delta = delta[begin + r];
      float* const weight = weights.row(r);    // before: the score
      float* const d_score = d_scores.row(r);  // before: the gradient of the dropped weight
#pragma omp simd
      for (int64_t i = 0; i < padded; ++i) {
        const float w = exp_fast(scale * weight[i] - row_log_sum_exp);
        weight[i] = multiplier[i] * w;
        d_score[i] = scale * w * (multiplier[i] * d_score[i] - row_delta);
      }
      std::fill(weight + visible, weight + columns, 0.0f);
      std::fill(d_score + visible, d_score + columns, 0.0f);
      weights.finish_row(r);
      d_scores.finish_row(r);
    }
  }
};

// ---- the operator ---------------------------------------------------------------------------------------------------

struct Attention {
  enum Input { kQkv, kSeed };
  enum Output { kOut, kLogSumExp };
  int64_t num_heads;
  Precision precision;
  DropoutAttributes dropout;

  explicit Attention(const Attributes& attributes)
      : num_heads(attributes.integer("num_heads", 1)), precision(precision_of(attributes)), dropout(attributes) {}

  Arrays inputs() const { return {{"qkv", 'f'}, {"seed", 'f'}}; }
  Arrays outputs() const { return {{"out", 'f'}, {"log_sum_exp", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape qkv = shapes.input(kQkv, 3);
    const AttentionSizes s = attention_sizes(qkv, num_heads);
    shapes.settle(kSeed, {kSeedSize});
    shapes.output(kOut) = with_last(qkv, static_cast<unsigned>(s.C));
    shapes.output(kLogSumExp) = {qkv[0], static_cast<unsigned>(s.H), qkv[1]};
  }

  void forward(const ForwardCall& call) const {
    const AttentionSizes s = attention_sizes(call.input(kQkv), num_heads);
    const Dropout drop = dropout_from(call.input(kSeed), dropout);
    const Heads qkv(precision, floats(call.input(kQkv)), HeadLayout::packed(s.B, s.T, 3 * s.H, s.D, 3 * s.C));
    float* const context = floats(call.output(kOut));
    float* const log_sum_exp = floats(call.output(kLogSumExp));
    const int64_t length = query_block(precision), blocks = (s.T + length - 1) / length;
    for_each_in_parallel(s.B * s.H * blocks, [&](int64_t item) {
      const int64_t row = item / blocks, b = row / s.H, h = row % s.H;
      const int64_t begin = (blocks - 1 - item % blocks) * length;  // the longest block of a head comes first
      const int64_t count = std::min(length, s.T - begin), N = begin + count;
      WeightMask mask(drop, s.T);
      const QueryBlock block = {rows_of(qkv.head(b, h), begin, count), rows_of(qkv.head(b, s.H + h), 0, N),
                                rows_of(qkv.head(b, 2 * s.H + h), 0, N), &mask, row * s.T + begin};
      attend(precision, block, context + (b * s.T + begin) * s.C + h * s.D, s.C, log_sum_exp + row * s.T + begin);
    });
  }

  void backward(const BackwardCall& call) const {  // the gradient of log_sum_exp is never used
    write_zeros(call, kSeed);
    if (!call.wants(kQkv)) return;
    const AttentionSizes s = attention_sizes(call.input(kQkv), num_heads);
    const Dropout drop = dropout_from(call.input(kSeed), dropout);
    const float* const out = floats(call.output(kOut));
    const float* const out_gradient = floats(call.output_gradient(kOut));
    const float* const log_sum_exp = floats(call.output(kLogSumExp));
    float* const d_qkv = floats(call.gradient(kQkv));
    const bool add = call.adds(kQkv);
    const HeadLayout layout = HeadLayout::packed(s.B, s.T, s.H, s.D, s.C);
    const HeadLayout qkv_layout = HeadLayout::packed(s.B, s.T, 3 * s.H, s.D, 3 * s.C);
    const Heads qkv(precision, floats(call.input(kQkv)), qkv_layout), gradient(precision, out_gradient, layout);
    for_each_in_parallel(s.B * s.H, [&](int64_t row) {
      const int64_t b = row / s.H, h = row % s.H;
      Buffer<float> delta(s.T);
      row_dots(out_gradient + layout.offset(b, h), out + layout.offset(b, h), s.T, s.D, s.C, delta.data());
      const HeadBackward head = {qkv.head(b, h), qkv.head(b, s.H + h), qkv.head(b, 2 * s.H + h), gradient.head(b, h),
                                 log_sum_exp + row * s.T, delta.data(), row * s.T, precision};
      WeightMask mask(drop, s.T);
      float* const d_query = d_qkv + qkv_layout.offset(b, h);
      head.run(mask, {d_query, d_query + s.C, d_query + 2 * s.C, 3 * s.C, add});
    });
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_attention, Attention);

}  // namespace kogpt2
