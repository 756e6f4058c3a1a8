// kogpt2_linear(data, weight, bias; precision, req) -> out
//
//   out = data weight^T + bias
//
// data (..., K), weight (N, K), bias (N,), out (..., N). M below is the product of data's leading axes.
// Backward, with g = d out: d data = g weight, d weight = g^T data, d bias = the column sums of g. Saved: nothing.
#include "linear_map.h"

namespace kogpt2 {
namespace {

struct Linear {
  enum Input { kData, kWeight, kBias };
  enum Output { kOut };
  Precision precision;

  explicit Linear(const Attributes& attributes) : precision(precision_of(attributes)) {}

  Arrays inputs() const { return {{"data", 'f'}, {"weight", 'f'}, {"bias", 'f'}}; }
  Arrays outputs() const { return {{"out", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    shapes.output(kOut) = settle_linear(shapes, shapes.input(kData), kWeight, kBias);
  }

  void forward(const ForwardCall& call) const {
    linear_forward(precision, call.input(kData), call.input(kWeight), call.input(kBias), call.output(kOut));
  }

  void backward(const BackwardCall& call) const {
    const int64_t M = num_rows(call.input(kData)), K = call.input(kData).shape.back();
    const int64_t N = call.input(kWeight).shape[0];
    float* const gradient = floats(call.output_gradient(kOut));
    const Factor output_gradient(precision, gradient, M, N);
    const Factor data(precision, floats(call.input(kData)), M, K);
    const Factor weight(precision, floats(call.input(kWeight)), N, K);
    linear_backward(output_gradient, gradient, data, weight.matrix(), linear_gradients(call, kData, kWeight, kBias));
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_linear, Linear);

}  // namespace kogpt2
