// What the attention operators share: heads as matrices, a block of queries against its keys, dropout of the weights,
// and a loop whose rounds are threads of their own.
//
// B batch size, T queries, H heads, D columns of a head, C = H D, N keys.
#pragma once
#include <exception>
#include <optional>

#include "dropout.h"
#include "matmul.h"
#include "scratch.h"

namespace kogpt2 {

// The sizes that packed queries, keys and values (B, T, 3 C) and `num_heads` give.
struct AttentionSizes {
  int64_t B, T, H, D, C;
};
AttentionSizes attention_sizes(const Shape& qkv, int64_t num_heads);
AttentionSizes attention_sizes(const MXTensor& qkv, int64_t num_heads);

// Runs body(i) for i = 0 .. count - 1, each in one thread, with products that use only that thread. An exception of
// body is thrown again after the loop. What is not much work stays in the calling thread.
template <typename Body>
void for_each_in_parallel(int64_t count, const Body& body, bool is_much = true) {
  std::exception_ptr error;
#pragma omp parallel if (is_much)
  {
    omp_set_num_threads(1);  // for this thread, until the region ends
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < count; ++i) {
      try {
        body(i);
      } catch (...) {
#pragma omp critical(kogpt2_for_each_in_parallel)
        error = std::current_exception();
      }
    }
  }
  if (error) std::rethrow_exception(error);
}

// `count` rounded up to whole vectors of the widest kind: a loop over the rest of a vector costs as much as many
// vectors.
inline int64_t whole_vectors(int64_t count) { return (count + 15) / 16 * 16; }

// Rows begin .. begin + count - 1.
Matrix rows_of(const Matrix& matrix, int64_t begin, int64_t count);

// The places of the heads in one array: `batch` times `heads` matrices of `rows` rows, in floats from its beginning.
struct HeadLayout {
  int64_t batch, heads, rows, D;
  int64_t batch_stride, head_stride, row_stride;

  // (B, T, columns): head h in columns h D .. (h + 1) D - 1.
  static HeadLayout packed(int64_t B, int64_t T, int64_t heads, int64_t D, int64_t columns) {
    return {B, heads, T, D, T * columns, D, columns};
  }
  // (B, H, capacity, D), of which `rows` rows are used.
  static HeadLayout split(int64_t B, int64_t H, int64_t rows, int64_t D, int64_t capacity) {
    return {B, H, rows, D, H * capacity * D, capacity * D, D};
  }
  int64_t offset(int64_t b, int64_t h) const { return b * batch_stride + h * head_stride; }
};

// The heads of an array as factors of products: in place, or rounded to bfloat16, or made float32, in memory of their
// own.
class Heads {
 public:
  Heads(Precision precision, const float* data, const HeadLayout& layout);
  Heads(Precision precision, const uint16_t* bfloat16, const HeadLayout& layout);

  // (rows, D)
  Matrix head(int64_t b, int64_t h) const;

 private:
  // Makes room for all heads, one after another, and calls write(from, to) for each row: places in `data` and in all_.
  template <typename Write>
  void copy_rows(Element element, const HeadLayout& from, const Write& write);

  HeadLayout layout_;  // of what all_ is the first head of
  Matrix all_;
  std::optional<Scratch> memory_;
};

// A matrix that is computed in float32, row by row, and is then a factor of a product.
class Panel {
 public:
  Panel(Precision precision, int64_t rows, int64_t columns);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  float* row(int64_t r) { return values_.data() + r * columns_; }
  void finish_row(int64_t r);  // call it when the values of the row are final
  Matrix matrix();

 private:
  Element element_;
  int64_t rows_, columns_;
  Buffer<float> values_;
  std::optional<Scratch> rounded_;
};

// One thread's multipliers for the attention weights. The weight of query q and key k of head (b, h) is element
// ((b H + h) T + q) * stride + k, where stride is T rounded up to whole Philox blocks.
class WeightMask {
 public:
  WeightMask(const Dropout& dropout, int64_t T);

  // The multipliers of keys first .. first + count - 1 of row (b H + h) T + q, where `first` is a multiple of 8. They
  // are valid until the next call.
  const float* row(int64_t row, int64_t first, int64_t count);

 private:
  Dropout dropout_;
  int64_t stride_;
  Buffer<float> multipliers_;
};

// A block of queries (rows, D), and the keys and values (N, D) that its last query sees; query r sees the first
// N - rows + r + 1 of them. Row r of the block is row first_row + r of `mask`; without a mask nothing is dropped.
struct QueryBlock {
  Matrix query, key, value;
  WeightMask* mask;
  int64_t first_row;
};

// out[r] = sum over k of mask[r, k] weight[r, k] value[k], where weight = softmax(query key^T / sqrt(D)); the rows of
// out are out_stride apart. log_sum_exp[r], unless it is null, is the logarithm of the softmax's divisor. Runs in one
// thread.
void attend(Precision precision, const QueryBlock& block, float* out, int64_t out_stride, float* log_sum_exp);

// Replaces scores[k] by e**(scale (scores[k] - the largest score)). Returns the sum of these, and log_sum_exp, the
// logarithm of the sum of e**(scale scores[k]).
struct SoftmaxRow {
  float sum, log_sum_exp;
};
SoftmaxRow exponentials(float* scores, int64_t count, float scale);

}  // namespace kogpt2
