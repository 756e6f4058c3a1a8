#include "linear_gradients.h"

namespace kogpt2 {

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
