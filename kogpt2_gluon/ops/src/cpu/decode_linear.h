// Linear maps for generation, as decode_linear.cc has them, for operators that are made of several.
#pragma once
#include "operator.h"

namespace kogpt2 {

// What stands around a linear map: out = residual + f(LayerNorm(data) weight^T + bias). Null: there is none.
struct Around {
  const float *gamma = nullptr, *beta = nullptr;  // of the LayerNorm
  const float* residual = nullptr;                // (M, N)
  bool gelu = false;
};

// out (M, N) of data (M, K); weight as kogpt2_decode_linear takes it, bias (N,).
void decode_linear(const float* data, int64_t M, int64_t K, MXTensor& weight, MXTensor& bias,
                   const Around& around, float* out);

// Refuses a weight's shape that is none of the three which a map from K to N may have.
void expect_weight(const Shape& weight, unsigned N, unsigned K);

// float32, or uint8 for one that is packed or tiled.
void expect_weight_type(int& type, size_t input);

}  // namespace kogpt2
