// The product of rows of data with a whole weight, for which oneDNN is not the fastest: with a few rows the time is that
// of reading the weight. Everything but the weight is float32, the sums too.
#pragma once
#include <cstdint>

namespace kogpt2 {

// A weight (N, K), row by row, as multiply_rows() reads it.
struct RowWeight {
  enum Form { kFloat32, kBfloat16, kInt8 };
  Form form;
  const void* data;
  const float* scales = nullptr;  // (N,), for int8: each row is multiplied by its scale
};

// out (M, N) = data weight^T, for data (M, K). Each number of `out` is a sum in one fixed order, which depends on the
// form and on K alone: it is the same to the last bit whatever M is, and whatever the other rows are. The weight is read
// from memory once.
void multiply_rows(const float* data, const RowWeight& weight, int64_t M, int64_t N, int64_t K, float* out);

}  // namespace kogpt2
