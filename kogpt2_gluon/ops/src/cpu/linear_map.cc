#include "linear_map.h"

namespace kogpt2 {

Shape settle_linear(ShapeInference& shapes, const Shape& data, size_t weight, size_t bias) {
  const unsigned N = shapes.input(weight, 2)[0];
  shapes.settle(weight, {N, data.back()});
  shapes.settle(bias, {N});
  return with_last(data, N);
}

void linear_forward(Precision precision, MXTensor& data, MXTensor& weight, MXTensor& bias, MXTensor& out) {
  const int64_t M = num_rows(data), K = data.shape.back(), N = weight.shape[0];
  const Factor data_factor(precision, floats(data), M, K);
  const Factor weight_factor(precision, floats(weight), N, K);
  matmul(data_factor.matrix(), weight_factor.transposed(), floats(out), 0, false, floats(bias));
}

LinearGradients linear_gradients(const BackwardCall& call, size_t data, size_t weight, size_t bias) {
  return {floats(call.gradient(data)), floats(call.gradient(weight)), floats(call.gradient(bias)),
          call.request(data),          call.request(weight),          call.request(bias)};
}

void linear_backward(const Factor& output_gradient, const float* output_gradient_values, const Factor& data,
                     const Matrix& weight, const LinearGradients& gradients) {
  if (gradients.data_request != Request::kNull) {
    matmul(output_gradient.matrix(), weight, gradients.data, 0, gradients.data_request == Request::kAdd);
  }
  if (gradients.weight_request != Request::kNull) {
    matmul(output_gradient.transposed(), data.matrix(), gradients.weight, 0,
           gradients.weight_request == Request::kAdd);
  }
  if (gradients.bias_request != Request::kNull) {
    column_sums(output_gradient_values, output_gradient.matrix().rows, output_gradient.matrix().columns,
                gradients.bias, gradients.bias_request == Request::kAdd);
  }
}

}  // namespace kogpt2
