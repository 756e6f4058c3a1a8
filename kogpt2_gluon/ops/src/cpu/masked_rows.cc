#include "masked_rows.h"

#include <algorithm>

namespace kogpt2 {
namespace {

int64_t whole_blocks(int64_t columns) {
  return (columns + kDecisionsPerBlock - 1) / kDecisionsPerBlock * kDecisionsPerBlock;
}

}  // namespace

void drop_and_add(const Dropout& dropout, float* branch, const float* residual, int64_t rows, int64_t columns) {
  const int64_t stride = whole_blocks(columns);
  Buffer<float> masks(dropout.active() ? stride * omp_get_max_threads() : 0);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    float* const out = branch + row * columns;
    const float* const from = residual + row * columns;
    if (dropout.active()) {
      float* const mask = masks.data() + omp_get_thread_num() * stride;
      fill_mask(dropout, static_cast<uint64_t>(row * stride), columns, mask);
#pragma omp simd
      for (int64_t i = 0; i < columns; ++i) out[i] = from[i] + mask[i] * out[i];
    } else {
#pragma omp simd
      for (int64_t i = 0; i < columns; ++i) out[i] += from[i];
    }
  }
}

MaskedGradient::MaskedGradient(const Dropout& dropout, Precision precision, const float* gradient, int64_t rows,
                               int64_t columns) {
  values_ = gradient;
  if (dropout.active()) {
    const int64_t stride = whole_blocks(columns);
    memory_.emplace(rows * columns);
    float* const masked = memory_->data();
    Buffer<float> masks(stride * omp_get_max_threads());
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      float* const mask = masks.data() + omp_get_thread_num() * stride;
      fill_mask(dropout, static_cast<uint64_t>(row * stride), columns, mask);
      const float* const from = gradient + row * columns;
      float* const to = masked + row * columns;
#pragma omp simd
      for (int64_t i = 0; i < columns; ++i) to[i] = mask[i] * from[i];
    }
    values_ = masked;
  }
  factor_.emplace(precision, values_, rows, columns);
}

void pass_gradient(const float* gradient, int64_t count, float* to, Request request) {
  if (request == Request::kNull) return;
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < count; ++i) to[i] = gradient[i] + (request == Request::kAdd ? to[i] : 0.0f);
}

}  // namespace kogpt2
