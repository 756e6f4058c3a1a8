// kogpt2_linear_dropout_residual(data, weight, bias, residual, seed; p, site, precision, req) -> out
//
//   out = residual + mask * (data weight^T + bias)
//
// data (..., K), weight (N, K), bias (N,), residual and out (..., N), seed (64,). mask is 0 or 1 / (1 - p), drawn from
// (seed, site, element) whenever it is needed.
// Backward, with g = d out and h = mask * g: d data = h weight, d weight = h^T data, d bias = the column sums of h,
// d residual = g. Saved: nothing.
#include <algorithm>

#include "linear_residual.h"
#include "masked_rows.h"

namespace kogpt2 {
namespace {

struct LinearDropoutResidual : LinearResidual {
  using LinearResidual::LinearResidual;

  void forward(const ForwardCall& call) const {
    MXTensor& out = call.output(kOut);
    linear_forward(precision, call.input(kData), call.input(kWeight), call.input(kBias), out);
    drop_and_add(dropout_from(call.input(kSeed), dropout), floats(out), floats(call.input(kResidual)), num_rows(out),
                 out.shape.back());
  }

  void backward(const BackwardCall& call) const {
    const int64_t M = num_rows(call.input(kData)), K = call.input(kData).shape.back();
    const int64_t N = call.input(kWeight).shape[0];
    const float* const gradient = floats(call.output_gradient(kOut));
    const MaskedGradient masked(dropout_from(call.input(kSeed), dropout), precision, gradient, M, N);
    const Factor data(precision, floats(call.input(kData)), M, K);
    const Factor weight(precision, floats(call.input(kWeight)), N, K);
    linear_backward(masked.factor(), masked.values(), data, weight.matrix(),
                    linear_gradients(call, kData, kWeight, kBias));
    pass_gradient(gradient, M * N, floats(call.gradient(kResidual)), call.request(kResidual));
    write_zeros(call, kSeed);
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_linear_dropout_residual, LinearDropoutResidual);

}  // namespace kogpt2
