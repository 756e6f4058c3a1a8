// What the operators that contain a linear map share: its shapes, its forward pass and its backward pass.
#pragma once
#include "matmul.h"

namespace kogpt2 {

// The shape of data weight^T + bias, for data (..., K), weight (N, K) and bias (N,): (..., N). Refuses other shapes.
Shape settle_linear(ShapeInference& shapes, const Shape& data, size_t weight, size_t bias);

// out = data weight^T + bias.
void linear_forward(Precision precision, MXTensor& data, MXTensor& weight, MXTensor& bias, MXTensor& out);

// Where the gradients of a linear map go, and which of them are requested.
struct LinearGradients {
  float *data, *weight, *bias;
  Request data_request, weight_request, bias_request;
};

// The gradients of these inputs.
LinearGradients linear_gradients(const BackwardCall& call, size_t data, size_t weight, size_t bias);

// For y = x W^T + b, with dy (M, N), x (M, K) and W (N, K), the gradients that are requested:
//   dx = dy W (M, K)    dW = dy^T x (N, K)    db = the column sums of dy (N,)
// dy is given twice: `output_gradient` as a factor, and `output_gradient_values` as float32 for the sums.
void linear_backward(const Factor& output_gradient, const float* output_gradient_values, const Factor& data,
                     const Matrix& weight, const LinearGradients& gradients);

}  // namespace kogpt2
