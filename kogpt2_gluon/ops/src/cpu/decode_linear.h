// Linear maps for generation, for the operators that are made of several. The mathematics is in decode_linear.cc.
#pragma once
#include "activation.h"
#include "cpu_operator.h"

namespace kogpt2 {

// LayerNorm of the data before the product; null where there is none.
struct Normalization {
  const float *gamma = nullptr, *beta = nullptr;  // (K,)
};

// What follows a product: out = residual + f(product + bias), where f is a gelu or the identity.
struct Epilogue {
  const float* bias;                // (N,)
  const float* residual = nullptr;  // (M, N); null where there is none
  Activation activation = Activation::kNone;

  // Works in place on a product (M, N).
  void apply(int64_t M, int64_t N, float* product) const;

 private:
  void apply_strip(int64_t column, int64_t count, int64_t offset, float* values) const;
};

// out (M, N) from data (M, K), with a weight as kogpt2_decode_linear takes it.
void decode_linear(const float* data, int64_t M, int64_t K, int64_t N, MXTensor& weight,
                   const Normalization& normalization, const Epilogue& epilogue, float* out);

// Refuses the shape of a weight unless it is one of the three that a map from K to N may have. It cannot be inferred.
void settle_weight(ShapeInference& shapes, size_t weight, unsigned N, unsigned K);

}  // namespace kogpt2
