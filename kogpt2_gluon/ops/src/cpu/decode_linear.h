// Linear maps for generation, for the operators that are made of several. The mathematics is in decode_linear.cc.
#pragma once
#include <vector>

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

constexpr float kEpsilon = 1e-5f;  // LayerNorm's

// The rows of one text in a pass.
struct Part {
  int64_t begin, count;
};

// out (M, N) from data (M, K), with a weight as kogpt2_decode_linear takes it. `parts`, one after another, are all M rows.
// What a part becomes does not depend on the others, to the last bit. `precision` is that of products of many rows
// with a weight in int8 or in codes.
void decode_linear(const float* data, const std::vector<Part>& parts, int64_t K, int64_t N, MXTensor& weight,
                   Precision precision, const Normalization& normalization, const Epilogue& epilogue, float* out);

// Refuses the shape of a weight unless it is one that a map from K to N may have. It cannot be inferred.
void settle_weight(ShapeInference& shapes, size_t weight, unsigned N, unsigned K);

// The rows of a packed int8 weight (N, K) that hold the scales.
inline int64_t scale_rows(int64_t N, int64_t K) { return (4 * N + K - 1) / K; }

}  // namespace kogpt2
