// kogpt2_linear(data, weight, bias; precision, req) -> out
//
//   out = data weight^T + bias
//
// data (..., K), weight (N, K), bias (N,), out (..., N). M below is the product of data's leading axes.
// Backward, of g = d out: d data = g weight, d weight = g^T data, d bias = the column sums of g. Saved: nothing.
#include "linear_gradients.h"

namespace kogpt2 {
namespace {

void linear_shape(const Attributes&, Shapes& in, Shapes& out) {
  expect_axes("weight", in[1], 2);
  expect_shape("weight", in[1], {in[1][0], in[0].back()});
  expect_shape("bias", in[2], {in[1][0]});
  out[0] = in[0];
  out[0].back() = in[1][0];
}

void linear_forward(const Attributes& attributes, Tensors& in, Tensors& out) {
  const Precision precision = precision_of(attributes);
  const int64_t M = num_rows(in[0]), K = in[0].shape.back(), N = in[1].shape[0];
  const Factor data(precision, floats(in[0]), M, K);
  const Factor weight(precision, floats(in[1]), N, K);
  matmul(data.matrix(), weight.transposed(), floats(out[0]), 0, false, floats(in[2]));
}

void linear_backward(const Attributes& attributes, Tensors& in, Tensors& gradients) {
  const Precision precision = precision_of(attributes);
  const auto requests = attributes.requests(3);
  const int64_t M = num_rows(in[1]), K = in[1].shape.back(), N = in[2].shape[0];
  const Factor output_gradient(precision, floats(in[0]), M, N);
  const Factor data(precision, floats(in[1]), M, K, 0, true);
  const Factor weight(precision, floats(in[2]), N, K, 0, true);
  linear_backward(output_gradient, floats(in[0]), data, weight.matrix(),
                  {floats(gradients[0]), floats(gradients[1]), floats(gradients[2]), requests[0], requests[1],
                   requests[2]});
}

}  // namespace

KOGPT2_OPERATOR(kogpt2_linear, 3, 1, 0, linear_shape, linear_forward, linear_backward);

}  // namespace kogpt2
