// kogpt2_feed_forward(data, hidden_weight, hidden_bias, out_weight, out_bias, residual, seed; p, site, precision, req)
//   -> out, pre_activation
//
//   pre_activation = data hidden_weight^T + hidden_bias
//   out = residual + mask * (gelu(pre_activation) out_weight^T + out_bias),  gelu in its erf form
//
// data (..., K), hidden_weight (H, K), hidden_bias (H,), out_weight (N, H), out_bias (N,), residual and out (..., N),
// pre_activation (..., H), seed (64,).
// Backward, of g = d out, with m = mask * g, a = gelu(pre_activation) and d = (m out_weight) gelu'(pre_activation):
//   d out_weight = m^T a            d out_bias = the column sums of m        d residual = g
//   d hidden_weight = d^T data      d hidden_bias = the column sums of d     d data = d hidden_weight
// Saved: pre_activation; a is computed again, which is cheaper than keeping it. As an output, not as saved.h would: then
// MXNet reuses its memory in evaluation, where no backward pass comes, and the zeros it makes for the output's gradient
// are one array for all layers (1% of a step).
#include "dropout.h"
#include "linear_gradients.h"
#include "masked_rows.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

enum Input { kData, kHiddenWeight, kHiddenBias, kOutWeight, kOutBias, kResidual, kSeed, kNumInputs };

struct Sizes {
  int64_t M, K, H, N;
};

Sizes sizes_of(const Tensors& tensors, int first) {
  return {num_rows(tensors[first + kData]), tensors[first + kData].shape.back(), tensors[first + kHiddenWeight].shape[0],
          tensors[first + kOutWeight].shape[0]};
}

void shape(const Attributes&, Shapes& in, Shapes& out) {
  expect_axes("hidden_weight", in[kHiddenWeight], 2);
  const unsigned H = in[kHiddenWeight][0];
  expect_shape("hidden_weight", in[kHiddenWeight], {H, in[kData].back()});
  expect_shape("hidden_bias", in[kHiddenBias], {H});
  expect_axes("out_weight", in[kOutWeight], 2);
  const unsigned N = in[kOutWeight][0];
  expect_shape("out_weight", in[kOutWeight], {N, H});
  expect_shape("out_bias", in[kOutBias], {N});
  Shape wanted = in[kData];
  wanted.back() = N;
  expect_shape("residual", in[kResidual], wanted);
  expect_shape("seed", in[kSeed], {kSeedSize});
  out[0] = wanted;
  out[1] = wanted;
  out[1].back() = H;
}

// gelu of (M, H), as a factor of the second product.
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

void forward(const Attributes& attributes, Tensors& in, Tensors& out) {
  const Precision precision = precision_of(attributes);
  const auto [M, K, H, N] = sizes_of(in, 0);
  float* const pre_activation = floats(out[1]);
  {
    const Factor data(precision, floats(in[kData]), M, K);
    const Factor weight(precision, floats(in[kHiddenWeight]), H, K);
    matmul(data.matrix(), weight.transposed(), pre_activation, 0, false, floats(in[kHiddenBias]));
  }
  Factor activation(precision, M, H);
  activate(pre_activation, activation);
  const Factor weight(precision, floats(in[kOutWeight]), N, H);
  matmul(activation.matrix(), weight.transposed(), floats(out[0]), 0, false, floats(in[kOutBias]));
  drop_and_add(dropout_from(floats(in[kSeed]), attributes), floats(out[0]), floats(in[kResidual]), M, N);
}

// gradient = gradient * gelu'(pre_activation) in place, and the activation as a factor, in one pass over both.
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

void backward(const Attributes& attributes, Tensors& tensors, Tensors& gradients) {
  constexpr int kFirstInput = 2;  // behind the gradients of the two outputs; pre_activation's is never used
  const Precision precision = precision_of(attributes);
  const auto requests = attributes.requests(kNumInputs);
  const auto [M, K, H, N] = sizes_of(tensors, kFirstInput);
  const auto input = [&](Input which) { return floats(tensors[kFirstInput + which]); };
  const float* const pre_activation = floats(tensors[kFirstInput + kNumInputs + 1]);

  const MaskedGradient masked(dropout_from(input(kSeed), attributes), precision, floats(tensors[0]), M, N);
  Buffer<float> hidden_gradient(M * H);
  {
    const Factor out_weight(precision, input(kOutWeight), N, H, 0, true);
    matmul(masked.factor().matrix(), out_weight.matrix(), hidden_gradient.data());
  }
  {
    Factor activation(precision, M, H);
    activate_backward(pre_activation, hidden_gradient.data(), activation);
    linear_backward(masked.factor(), masked.values(), activation, {},
                    {nullptr, floats(gradients[kOutWeight]), floats(gradients[kOutBias]), Request::kNull,
                     requests[kOutWeight], requests[kOutBias]});
  }
  const Factor hidden_factor(precision, hidden_gradient.data(), M, H);
  const Factor data(precision, input(kData), M, K, 0, true);
  const Factor hidden_weight(precision, input(kHiddenWeight), H, K, 0, true);
  linear_backward(hidden_factor, hidden_gradient.data(), data, hidden_weight.matrix(),
                  {floats(gradients[kData]), floats(gradients[kHiddenWeight]), floats(gradients[kHiddenBias]),
                   requests[kData], requests[kHiddenWeight], requests[kHiddenBias]});
  pass_gradient(floats(tensors[0]), M * N, floats(gradients[kResidual]), requests[kResidual]);
  write_seed_gradient(gradients[kSeed], requests[kSeed]);
}

}  // namespace

KOGPT2_OPERATOR(kogpt2_feed_forward, 7, 2, 0, shape, forward, backward);

}  // namespace kogpt2
