// kogpt2_linear_dropout_residual(data, weight, bias, residual, seed; p, site, precision, req) -> out
//
//   out = residual + mask * (data weight^T + bias)
//
// data (..., K), weight (N, K), bias (N,), residual and out (..., N), seed (64,). mask is 0 or 1 / (1 - p), drawn from
// (seed, site, element) whenever it is needed.
// Backward, of g = d out: with h = mask * g, d data = h weight, d weight = h^T data, d bias = the column sums of h,
// d residual = g. Saved: nothing.
#include <algorithm>

#include "dropout.h"
#include "linear_gradients.h"
#include "masked_rows.h"

namespace kogpt2 {
namespace {

void shape(const Attributes&, Shapes& in, Shapes& out) {
  expect_axes("weight", in[1], 2);
  expect_shape("weight", in[1], {in[1][0], in[0].back()});
  expect_shape("bias", in[2], {in[1][0]});
  Shape wanted = in[0];
  wanted.back() = in[1][0];
  expect_shape("residual", in[3], wanted);
  expect_shape("seed", in[4], {kSeedSize});
  out[0] = wanted;
}

void forward(const Attributes& attributes, Tensors& in, Tensors& out) {
  const Precision precision = precision_of(attributes);
  const int64_t M = num_rows(in[0]), K = in[0].shape.back(), N = in[1].shape[0];
  const Factor data(precision, floats(in[0]), M, K);
  const Factor weight(precision, floats(in[1]), N, K);
  matmul(data.matrix(), weight.transposed(), floats(out[0]), 0, false, floats(in[2]));
  drop_and_add(dropout_from(floats(in[4]), attributes), floats(out[0]), floats(in[3]), M, N);
}

void backward(const Attributes& attributes, Tensors& in, Tensors& gradients) {
  const Precision precision = precision_of(attributes);
  const auto requests = attributes.requests(5);
  const int64_t M = num_rows(in[1]), K = in[1].shape.back(), N = in[2].shape[0];
  const MaskedGradient masked(dropout_from(floats(in[5]), attributes), precision, floats(in[0]), M, N);
  const Factor data(precision, floats(in[1]), M, K, 0, true);
  const Factor weight(precision, floats(in[2]), N, K, 0, true);
  linear_backward(masked.factor(), masked.values(), data, weight.matrix(),
                  {floats(gradients[0]), floats(gradients[1]), floats(gradients[2]), requests[0], requests[1],
                   requests[2]});
  pass_gradient(floats(in[0]), M * N, floats(gradients[3]), requests[3]);
  write_seed_gradient(gradients[4], requests[4]);
}

}  // namespace

KOGPT2_OPERATOR(kogpt2_linear_dropout_residual, 5, 1, 0, shape, forward, backward);

}  // namespace kogpt2
