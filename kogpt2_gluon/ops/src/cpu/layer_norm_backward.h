// What the operators that contain a LayerNorm share: its attribute, and its backward pass (formulas: layer_norm.cc).
#pragma once
#include "cpu_operator.h"

namespace kogpt2 {

// The attribute epsilon, which is added to the variance.
float epsilon_of(const Attributes& attributes);

// Where the gradients of a LayerNorm go, and which of them are requested.
struct LayerNormGradients {
  float *data, *gamma, *beta;
  Request data_request, gamma_request, beta_request;
};

// The gradients of these inputs.
LayerNormGradients layer_norm_gradients(const BackwardCall& call, size_t data, size_t gamma, size_t beta);

// `gradient` and data are (M, C); gradient is that of the result. The moments of each row are computed again.
void layer_norm_backward(const float* gradient, const float* data, const float* gamma, int64_t M, int64_t C,
                         float epsilon, const LayerNormGradients& to);

}  // namespace kogpt2
