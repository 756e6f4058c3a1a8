// kogpt2_norm_linear(data, gamma, beta, weight, bias; epsilon=1e-5, precision, req) -> out
//
//   out = LayerNorm(data) weight^T + bias,  LayerNorm as in layer_norm.cc
//
// data (..., K), gamma and beta (K,), weight (N, K), bias (N,), out (..., N).
// Backward, with g = d out and n = LayerNorm(data):
//   d weight = g^T n    d bias = the column sums of g    d data, d gamma, d beta: those of LayerNorm for d n = g weight
// Saved: nothing; n is computed again, which takes less time than a product's copy of it and no memory between the two
// passes. As an operator of its own LayerNorm would keep an array of data's size in every layer.
#include "layer_norm_backward.h"
#include "layer_norm_row.h"
#include "linear_map.h"

namespace kogpt2 {
namespace {

struct NormLinear {
  enum Input { kData, kGamma, kBeta, kWeight, kBias };
  enum Output { kOut };
  Precision precision;
  float epsilon;

  explicit NormLinear(const Attributes& attributes)
      : precision(precision_of(attributes)), epsilon(epsilon_of(attributes)) {}

  Arrays inputs() const { return {{"data", 'f'}, {"gamma", 'f'}, {"beta", 'f'}, {"weight", 'f'}, {"bias", 'f'}}; }
  Arrays outputs() const { return {{"out", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape data = shapes.input(kData);
    shapes.settle(kGamma, {data.back()});
    shapes.settle(kBeta, {data.back()});
    shapes.output(kOut) = settle_linear(shapes, data, kWeight, kBias);
  }

  // LayerNorm(data) as a factor: a ForwardCall or a BackwardCall.
  template <typename AnyCall>
  void normalize(const AnyCall& call, Factor& normalized) const {
    const int64_t M = normalized.matrix().rows, K = normalized.matrix().columns;
    const float* const data = floats(call.input(kData));
    const float* const gamma = floats(call.input(kGamma));
    const float* const beta = floats(call.input(kBeta));
    Buffer<float> rows(K * omp_get_max_threads());
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; ++m) {
      float* const row = rows.data() + omp_get_thread_num() * K;
      normalize_row(data + m * K, gamma, beta, K, epsilon, row);
      normalized.store_row(m, row);
    }
  }

  void forward(const ForwardCall& call) const {
    const int64_t M = num_rows(call.input(kData)), K = call.input(kData).shape.back();
    const int64_t N = call.input(kWeight).shape[0];
    Factor normalized(precision, M, K, Side::kLeft);
    normalize(call, normalized);
    const Factor weight(precision, floats(call.input(kWeight)), N, K);
    matmul(normalized.matrix(), weight.transposed(), floats(call.output(kOut)), 0, false, floats(call.input(kBias)));
  }

  void backward(const BackwardCall& call) const {
    const int64_t M = num_rows(call.input(kData)), K = call.input(kData).shape.back();
    const int64_t N = call.input(kWeight).shape[0];
    float* const gradient = floats(call.output_gradient(kOut));
    const Factor output_gradient(precision, gradient, M, N);
    const Factor weight(precision, floats(call.input(kWeight)), N, K);
    Factor normalized(precision, M, K);
    normalize(call, normalized);
    Buffer<float> normalized_gradient(M * K);
    const LinearGradients gradients = {normalized_gradient.data(),   floats(call.gradient(kWeight)),
                                       floats(call.gradient(kBias)), Request::kWrite,
                                       call.request(kWeight),        call.request(kBias)};
    linear_backward(output_gradient, gradient, normalized, weight.matrix(), gradients);
    layer_norm_backward(normalized_gradient.data(), floats(call.input(kData)), floats(call.input(kGamma)), M, K,
                        epsilon, layer_norm_gradients(call, kData, kGamma, kBeta));
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_norm_linear, NormLinear);

}  // namespace kogpt2
