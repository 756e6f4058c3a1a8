// kogpt2_layer_norm(data, gamma, beta; epsilon=1e-5, req) -> out
//
//   out = gamma * x + beta,  x = (data - mean) * r,  r = 1 / sqrt(variance + epsilon)
//
// data and out (..., C), gamma and beta (C,). mean and variance are those of each row of C values. The variance is
// taken around the mean in a second pass, so that a row far from 0 loses no accuracy.
// Backward, with g = d out and h = gamma * g:
//   d data = r (h - mean(h) - x mean(h x))    d gamma = the column sums of g x    d beta = the column sums of g
// Saved: nothing; mean and r are computed again.
#include "layer_norm_backward.h"
#include "layer_norm_row.h"

namespace kogpt2 {
namespace {

struct LayerNorm {
  enum Input { kData, kGamma, kBeta };
  enum Output { kOut };
  float epsilon;

  explicit LayerNorm(const Attributes& attributes) : epsilon(epsilon_of(attributes)) {}

  Arrays inputs() const { return {{"data", 'f'}, {"gamma", 'f'}, {"beta", 'f'}}; }
  Arrays outputs() const { return {{"out", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape data = shapes.input(kData);
    shapes.settle(kGamma, {data.back()});
    shapes.settle(kBeta, {data.back()});
    shapes.output(kOut) = data;
  }

  void forward(const ForwardCall& call) const {
    const int64_t M = num_rows(call.input(kData)), C = call.input(kData).shape.back();
    const float* const data = floats(call.input(kData));
    const float* const gamma = floats(call.input(kGamma));
    const float* const beta = floats(call.input(kBeta));
    float* const normalized = floats(call.output(kOut));
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; ++m) {
      normalize_row(data + m * C, gamma, beta, C, epsilon, normalized + m * C);
    }
  }

  void backward(const BackwardCall& call) const {
    const int64_t M = num_rows(call.input(kData)), C = call.input(kData).shape.back();
    layer_norm_backward(floats(call.output_gradient(kOut)), floats(call.input(kData)), floats(call.input(kGamma)), M, C,
                        epsilon, layer_norm_gradients(call, kData, kGamma, kBeta));
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_layer_norm, LayerNorm);

}  // namespace kogpt2
