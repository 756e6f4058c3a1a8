#include "attention_heads.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "vector_math.h"

namespace kogpt2 {
namespace {

// oneDNN leaves its fastest bfloat16 kernels when a transposed factor is 1,024 rows long: 147 us in place of 50.
constexpr int64_t kLongestTransposed = 512;

void round_row(const float* from, int64_t count, uint16_t* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = to_bfloat16(from[i]);
}

// The bits of a float as an integer of the same order, and back. The compiler makes vector code for a maximum of
// integers, but not of floats, where NaN forbids it. A NaN comes out as the largest value, and so is not lost.
KOGPT2_INLINE int32_t ordered(int32_t bits) { return bits ^ ((bits >> 31) & 0x7FFFFFFF); }

float largest_of(const float* values, int64_t count) {
  int32_t largest = std::numeric_limits<int32_t>::min();
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, ordered(static_cast<int32_t>(bits_of(values[i]))));
  }
  return float_of(static_cast<uint32_t>(ordered(largest)));
}

}  // namespace

AttentionSizes attention_sizes(const Shape& qkv, int64_t num_heads) {
  const int64_t H = num_heads, columns = qkv[2];
  if (columns % (3 * H)) fail("qkv has shape ", to_text(qkv), ": ", columns, " columns are not 3 times ", H, " heads");
  return {qkv[0], qkv[1], H, columns / (3 * H), columns / 3};
}

AttentionSizes attention_sizes(const MXTensor& qkv, int64_t num_heads) {
  return attention_sizes(Shape(qkv.shape.begin(), qkv.shape.end()), num_heads);
}

Matrix rows_of(const Matrix& matrix, int64_t begin, int64_t count) {
  Matrix part = matrix;
  const int64_t size = matrix.is_bfloat16 ? sizeof(uint16_t) : sizeof(float);
  part.data = static_cast<const char*>(matrix.data) + begin * matrix.row_stride * size;
  part.rows = count;
  return part;
}

Heads::Heads(Precision precision, const float* data, const HeadLayout& layout) : data_(data), layout_(layout) {
  if (precision == Precision::kFloat32) return;
  const int64_t count = layout.batch * layout.heads, rows = layout.rows, D = layout.D;
  memory_.emplace(count * rows * D);
  uint16_t* const rounded = memory_->data();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    const float* const from = data + layout.offset(i / layout.heads, i % layout.heads);
    for (int64_t row = 0; row < rows; ++row) {
      round_row(from + row * layout.row_stride, D, rounded + (i * rows + row) * D);
    }
  }
  rounded_ = rounded;
}

Matrix Heads::head(int64_t b, int64_t h) const {
  const int64_t rows = layout_.rows, D = layout_.D;
  if (rounded_ == nullptr) return {data_ + layout_.offset(b, h), false, rows, D, layout_.row_stride, 1};
  return {rounded_ + (b * layout_.heads + h) * rows * D, true, rows, D, D, 1};
}

Panel::Panel(Precision precision, int64_t rows, int64_t columns)
    : rows_(rows), columns_(columns), values_(rows * columns) {
  if (precision == Precision::kBfloat16) rounded_.emplace(rows * columns);
}

void Panel::finish_row(int64_t r) {
  if (rounded_) round_row(row(r), columns_, rounded_->data() + r * columns_);
}

Matrix Panel::matrix() {
  if (rounded_) return {rounded_->data(), true, rows_, columns_, columns_, 1};
  return {values_.data(), false, rows_, columns_, columns_, 1};
}

WeightMask::WeightMask(const Dropout& dropout, int64_t T)
    : dropout_(dropout),
      stride_((T + kDecisionsPerBlock - 1) / kDecisionsPerBlock * kDecisionsPerBlock),
      multipliers_(whole_vectors(T)) {
  std::fill_n(multipliers_.data(), T, 1.0f);
}

const float* WeightMask::row(int64_t row, int64_t first, int64_t count) {
  if (!dropout_.active()) return multipliers_.data();
  fill_mask(dropout_, static_cast<uint64_t>(row * stride_ + first), count, multipliers_.data());
  return multipliers_.data();
}

SoftmaxRow exponentials(float* scores, int64_t count, float scale) {
  const float largest = largest_of(scores, count);
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    scores[i] = exp_fast(scale * (scores[i] - largest));
    sum += scores[i];
  }
  return {sum, scale * largest + std::log(sum)};
}

void attend(const QueryBlock& block, float* out, int64_t out_stride, float* log_sum_exp) {
  const int64_t rows = block.query.rows, D = block.query.columns, N = block.key.rows;
  const float scale = 1.0f / std::sqrt(static_cast<float>(D));
  Panel weights(block.query.is_bfloat16 ? Precision::kBfloat16 : Precision::kFloat32, rows, N);
  for (int64_t begin = 0; begin < N; begin += kLongestTransposed) {
    const Matrix keys = rows_of(block.key, begin, std::min(kLongestTransposed, N - begin));
    matmul(block.query, keys.transposed(), weights.row(0) + begin, N);
  }
  Buffer<float> inverse_sums(rows);
  for (int64_t r = 0; r < rows; ++r) {
    float* const row = weights.row(r);
    const int64_t visible = N - rows + r + 1, padded = std::min(N, whole_vectors(visible));
    std::fill(row + visible, row + padded, -std::numeric_limits<float>::infinity());
    const SoftmaxRow softmax = exponentials(row, padded, scale);
    inverse_sums.data()[r] = 1.0f / softmax.sum;
    if (log_sum_exp) log_sum_exp[r] = softmax.log_sum_exp;
    if (block.mask) {
      const float* const mask = block.mask->row(block.first_row + r, 0, padded);
#pragma omp simd
      for (int64_t i = 0; i < padded; ++i) row[i] *= mask[i];
    }
    std::fill(row + visible, row + N, 0.0f);
    weights.finish_row(r);
  }
  Buffer<float> sums(rows * D);  // close together: oneDNN is slower at rows far apart
  matmul(weights.matrix(), block.value, sums.data());
  for (int64_t r = 0; r < rows; ++r) {
    const float factor = inverse_sums.data()[r];
    const float* const from = sums.data() + r * D;
    float* const to = out + r * out_stride;
#pragma omp simd
    for (int64_t i = 0; i < D; ++i) to[i] = factor * from[i];
  }
}

}  // namespace kogpt2
