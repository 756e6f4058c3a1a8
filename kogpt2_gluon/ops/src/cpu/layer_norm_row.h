// LayerNorm of one row, which layer_norm.cc and decode_linear.cc share.
#pragma once
#include <cmath>
#include <cstdint>

namespace kogpt2 {

struct Moments {
  float mean, inverse_deviation;
};

inline Moments moments(const float* row, int64_t C, float epsilon) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < C; ++i) sum += row[i];
  const float mean = sum / static_cast<float>(C);
  float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < C; ++i) squares += (row[i] - mean) * (row[i] - mean);
  return {mean, 1.0f / std::sqrt(squares / static_cast<float>(C) + epsilon)};
}

// to = gamma * x + beta, with x = (from - mean) / sqrt(variance + epsilon). All arrays have `C` values.
inline void normalize_row(const float* from, const float* gamma, const float* beta, int64_t C, float epsilon,
                          float* to) {
  const auto [mean, inverse_deviation] = moments(from, C, epsilon);
#pragma omp simd
  for (int64_t i = 0; i < C; ++i) to[i] = gamma[i] * ((from[i] - mean) * inverse_deviation) + beta[i];
}

}  // namespace kogpt2
