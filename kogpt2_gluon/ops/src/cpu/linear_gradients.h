// The backward pass that all linear maps share.
#pragma once
#include "matmul.h"

namespace kogpt2 {

// For y = x W^T + b, of dy (M, N), x (M, K) and W (N, K), as far as each is requested:
//   dx = dy W (M, K)    dW = dy^T x (N, K)    db = the column sums of dy (N,)
struct LinearGradients {
  float *data, *weight, *bias;
  Request data_request, weight_request, bias_request;
};

// `output_gradient` is dy twice: as a factor, and as float32 for the sums.
void linear_backward(const Factor& output_gradient, const float* output_gradient_values, const Factor& data,
                     const Matrix& weight, const LinearGradients& gradients);

}  // namespace kogpt2
