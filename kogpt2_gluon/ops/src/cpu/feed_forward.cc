// kogpt2_feed_forward(data, hidden_weight, hidden_bias, out_weight, out_bias, residual, seed; p, site, precision, req)
//   -> out, pre_activation
//
//   pre_activation = data hidden_weight^T + hidden_bias
//   out = residual + mask * (gelu(pre_activation) out_weight^T + out_bias),  gelu in its erf form
//
// data (..., K), hidden_weight (H, K), hidden_bias (H,), out_weight (N, H), out_bias (N,), residual and out (..., N),
// pre_activation (..., H), seed (64,).
// Backward, with g = d out, m = mask * g, a = gelu(pre_activation) and d = (m out_weight) gelu'(pre_activation):
//   d out_weight = m^T a            d out_bias = the column sums of m        d residual = g
//   d hidden_weight = d^T data      d hidden_bias = the column sums of d     d data = d hidden_weight
// Saved: pre_activation; a is computed again, which is cheaper than keeping it. pre_activation is an output and not a
// Saved (common/operator.h): so MXNet reuses its memory in evaluation, where no backward pass follows, and the zeros
// that MXNet makes for the gradient of this output are one array for all layers (1% of a step).
#include "dropout.h"
#include "linear_map.h"
#include "masked_rows.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

// gelu of pre_activation (M, H), as a factor of the second product.
void activate(const float* pre_activation, Factor& activation) {
  const int64_t M = activation.matrix().rows, H = activation.matrix().columns;
  Buffer<float> rows(H * omp_get_max_threads());
#pragma omp parallel for schedule(static)
  for (int64_t m = 0; m < M; ++m) {
    float* const row = rows.data() + omp_get_thread_num() * H;
    const float* const from = pre_activation + m * H;
#pragma omp simd
    for (int64_t i = 0; i < H; ++i) row[i] = gelu(from[i]);
    activation.store_row(m, row);
  }
}

// gradient = gradient * gelu'(pre_activation) in place, and the activation as a factor, in one pass over both arrays.
void activate_backward(const float* pre_activation, float* gradient, Factor& activation) {
  const int64_t M = activation.matrix().rows, H = activation.matrix().columns;
  Buffer<float> rows(H * omp_get_max_threads());
#pragma omp parallel for schedule(static)
  for (int64_t m = 0; m < M; ++m) {
    float* const row = rows.data() + omp_get_thread_num() * H;
    const float* const from = pre_activation + m * H;
    float* const to = gradient + m * H;
#pragma omp simd
    for (int64_t i = 0; i < H; ++i) {
      const Normal at = normal(from[i]);
      row[i] = from[i] * at.cumulative;
      to[i] *= at.cumulative + from[i] * at.density;
    }
    activation.store_row(m, row);
  }
}

struct FeedForward {
  enum Input { kData, kHiddenWeight, kHiddenBias, kOutWeight, kOutBias, kResidual, kSeed };
  enum Output { kOut, kPreActivation };
  Precision precision;
  DropoutAttributes dropout;

  explicit FeedForward(const Attributes& attributes) : precision(precision_of(attributes)), dropout(attributes) {}

  Arrays inputs() const {
    return {{"data", 'f'},     {"hidden_weight", 'f'}, {"hidden_bias", 'f'}, {"out_weight", 'f'},
            {"out_bias", 'f'}, {"residual", 'f'},      {"seed", 'f'}};
  }
  Arrays outputs() const { return {{"out", 'f'}, {"pre_activation", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape hidden = settle_linear(shapes, shapes.input(kData), kHiddenWeight, kHiddenBias);
    const Shape out = settle_linear(shapes, hidden, kOutWeight, kOutBias);
    shapes.settle(kResidual, out);
    shapes.settle(kSeed, {kSeedSize});
    shapes.output(kOut) = out;
    shapes.output(kPreActivation) = hidden;
  }

  void forward(const ForwardCall& call) const {
    MXTensor &out = call.output(kOut), &pre_activation = call.output(kPreActivation);
    const int64_t M = num_rows(out), H = pre_activation.shape.back(), N = out.shape.back();
    linear_forward(precision, call.input(kData), call.input(kHiddenWeight), call.input(kHiddenBias), pre_activation);
    Factor activation(precision, M, H);
    activate(floats(pre_activation), activation);
    const Factor weight(precision, floats(call.input(kOutWeight)), N, H);
    matmul(activation.matrix(), weight.transposed(), floats(out), 0, false, floats(call.input(kOutBias)));
    drop_and_add(dropout_from(call.input(kSeed), dropout), floats(out), floats(call.input(kResidual)), M, N);
  }

  void backward(const BackwardCall& call) const {
    const int64_t M = num_rows(call.input(kData)), K = call.input(kData).shape.back();
    const int64_t H = call.input(kHiddenWeight).shape[0], N = call.input(kOutWeight).shape[0];
    const float* const gradient = floats(call.output_gradient(kOut));  // that of pre_activation is never used
    const MaskedGradient masked(dropout_from(call.input(kSeed), dropout), precision, gradient, M, N);
    Buffer<float> hidden_gradient(M * H);
    {
      const Factor out_weight(precision, floats(call.input(kOutWeight)), N, H);
      matmul(masked.factor().matrix(), out_weight.matrix(), hidden_gradient.data());
    }
    {
      Factor activation(precision, M, H);
      activate_backward(floats(call.output(kPreActivation)), hidden_gradient.data(), activation);
      LinearGradients gradients = linear_gradients(call, kData, kOutWeight, kOutBias);
      gradients.data_request = Request::kNull;  // hidden_gradient, which is there already
      linear_backward(masked.factor(), masked.values(), activation, {}, gradients);
    }
    const Factor hidden_factor(precision, hidden_gradient.data(), M, H);
    const Factor data(precision, floats(call.input(kData)), M, K);
    const Factor hidden_weight(precision, floats(call.input(kHiddenWeight)), H, K);
    linear_backward(hidden_factor, hidden_gradient.data(), data, hidden_weight.matrix(),
                    linear_gradients(call, kData, kHiddenWeight, kHiddenBias));
    pass_gradient(gradient, M * N, floats(call.gradient(kResidual)), call.request(kResidual));
    write_zeros(call, kSeed);
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_feed_forward, FeedForward);

}  // namespace kogpt2
