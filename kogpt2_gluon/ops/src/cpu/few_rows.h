// The product of a few rows of data with a whole weight, for which oneDNN is not the fastest: the time is that of
// reading the weight. Everything but the weight is float32, the sums too.
#pragma once
#include <cstdint>

namespace kogpt2 {

constexpr int64_t kFewRows = 8;

// out (M, N) = data weight^T, for data (M, K) with M from 1 to kFewRows, and weight (N, K) in float32, or in bfloat16.
void multiply_few_rows(const float* data, const float* weight, int64_t M, int64_t N, int64_t K, float* out);
void multiply_few_rows(const float* data, const uint16_t* bfloat16_weight, int64_t M, int64_t N, int64_t K, float* out);

}  // namespace kogpt2
