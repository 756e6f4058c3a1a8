#include "attention_heads.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "vector_math.h"

namespace kogpt2 {
namespace {

// oneDNN leaves its fastest bfloat16 kernels when a transposed factor is 1,024 rows long: 147 us in place of 50.
constexpr int64_t kLongestTransposed = 512;

// Rows of factors that are rounded to bfloat16 in any case, because their products are too small for packing to pay:
// as bfloat16, or as the same numbers in float32.
struct RoundedRow {
  static Element stored_as(Element element) {
    return element == Element::kToRound ? Element::kFloat : element;
  }
  static size_t bytes(Element element, int64_t count) {
    return static_cast<size_t>(count) * Matrix{nullptr, element, 0, 0, 0, 0}.element_bytes();
  }
  // Writes `count` values to to[at], to[at + 1], ...; `from` may be that place.
  static void write(Element element, const float* from, int64_t count, void* to, int64_t at) {
    if (element == Element::kBfloat16) {
      uint16_t* const rounded = static_cast<uint16_t*>(to) + at;
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) rounded[i] = to_bfloat16(from[i]);
    } else {
      float* const rounded = static_cast<float*>(to) + at;
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) rounded[i] = float_of(static_cast<uint32_t>(to_bfloat16(from[i])) << 16);
    }
  }
};

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
  part.data = static_cast<const char*>(matrix.data) + begin * matrix.row_stride * matrix.element_bytes();
  part.rows = count;
  return part;
}

Heads::Heads(Precision precision, const float* data, const HeadLayout& layout) : layout_(layout) {
  const Element element = element_of(precision);
  if (element == Element::kFloat) {
    all_ = {data, element, layout.rows, layout.D, layout.row_stride, 1};
    return;
  }
  copy_rows(element, layout, [&](int64_t from, int64_t to) {
    RoundedRow::write(element, data + from, layout.D, memory_->as<void>(), to);
  });
}

Heads::Heads(Precision precision, const uint16_t* bfloat16, const HeadLayout& layout) : layout_(layout) {
  if (element_of(precision) == Element::kBfloat16) {
    all_ = {bfloat16, Element::kBfloat16, layout.rows, layout.D, layout.row_stride, 1};
    return;
  }
  copy_rows(Element::kFloat, layout, [&](int64_t from, int64_t to) {
    float* const place = memory_->as<float>() + to;
#pragma omp simd
    for (int64_t i = 0; i < layout.D; ++i) place[i] = float_of(static_cast<uint32_t>(bfloat16[from + i]) << 16);
  });
}

template <typename Write>
void Heads::copy_rows(Element element, const HeadLayout& from, const Write& write) {
  const int64_t count = from.batch * from.heads, rows = from.rows, D = from.D;
  layout_ = HeadLayout::split(from.batch, from.heads, rows, D, rows);
  memory_.emplace(RoundedRow::bytes(element, count * rows * D));
  all_ = {memory_->as<void>(), RoundedRow::stored_as(element), rows, D, D, 1};
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    const int64_t head = from.offset(i / from.heads, i % from.heads);
    for (int64_t row = 0; row < rows; ++row) write(head + row * from.row_stride, (i * rows + row) * D);
  }
}

Matrix Heads::head(int64_t b, int64_t h) const {
  Matrix head = all_;
  head.data = static_cast<const char*>(all_.data) + layout_.offset(b, h) * all_.element_bytes();
  return head;
}

Panel::Panel(Precision precision, int64_t rows, int64_t columns)
    : element_(element_of(precision)), rows_(rows), columns_(columns), values_(rows * columns) {
  if (element_ == Element::kBfloat16) rounded_.emplace(rows * columns * sizeof(uint16_t));
}

void Panel::finish_row(int64_t r) {
  if (element_ == Element::kFloat) return;
  RoundedRow::write(element_, row(r), columns_, rounded_ ? rounded_->as<void>() : values_.data(), r * columns_);
}

Matrix Panel::matrix() {
  void* const data = rounded_ ? rounded_->as<void>() : values_.data();
  return {data, RoundedRow::stored_as(element_), rows_, columns_, columns_, 1};
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

void attend(Precision precision, const QueryBlock& block, float* out, int64_t out_stride, float* log_sum_exp) {
  const int64_t rows = block.query.rows, D = block.query.columns, N = block.key.rows;
  const float scale = 1.0f / std::sqrt(static_cast<float>(D));
  Panel weights(precision, rows, N);
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
