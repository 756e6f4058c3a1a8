// kogpt2_gelu_linear_dropout_residual(data, weight, bias, residual, seed; p, site, precision, activation, req) -> out
//
//   out = residual + mask * (gelu(data) weight^T + bias),  gelu in the form that `activation` names (activation.h)
//
// The second half of a feed-forward layer. data (..., H), weight (N, H), bias (N,), residual and out (..., N), seed
// (64,). mask is 0 or 1 / (1 - p), drawn from (seed, site, element) whenever it is needed.
// Backward, with g = d out, m = mask * g and a = gelu(data):
//   d data = (m weight) gelu'(data)    d weight = m^T a    d bias = the column sums of m    d residual = g
// Saved: nothing; a is computed again, which is cheaper than keeping it.
#include "activation.h"
#include "linear_residual.h"
#include "masked_rows.h"

namespace kogpt2 {
namespace {

// gelu of data (M, H), as a factor of the product.
template <Activation form>
void activate(const float* data, Factor& activation) {
  const int64_t M = activation.matrix().rows, H = activation.matrix().columns;
  Buffer<float> rows(H * omp_get_max_threads());
#pragma omp parallel for schedule(static)
  for (int64_t m = 0; m < M; ++m) {
    float* const row = rows.data() + omp_get_thread_num() * H;
    activate_row<form>(H, data + m * H, row);
    activation.store_row(m, row);
  }
}

// gradient = gradient * gelu'(data) in place, and the activation as a factor, in one pass over both arrays.
template <Activation form>
void activate_backward(const float* data, float* gradient, Factor& activation) {
  const int64_t M = activation.matrix().rows, H = activation.matrix().columns;
  Buffer<float> rows(H * omp_get_max_threads());
#pragma omp parallel for schedule(static)
  for (int64_t m = 0; m < M; ++m) {
    float* const row = rows.data() + omp_get_thread_num() * H;
    const float* const from = data + m * H;
    float* const to = gradient + m * H;
#pragma omp simd
    for (int64_t i = 0; i < H; ++i) {
      const Normal at = normal_for<form>(from[i]);
      row[i] = from[i] * at.cumulative;
      to[i] *= at.cumulative + from[i] * at.density;
    }
    activation.store_row(m, row);
  }
}

struct GeluLinearDropoutResidual : LinearResidual {
  bool tanh_form;

  explicit GeluLinearDropoutResidual(const Attributes& attributes)
      : LinearResidual(attributes), tanh_form(activation_of(attributes, "gelu") == Activation::kGeluTanh) {}

  void forward(const ForwardCall& call) const {
    MXTensor& out = call.output(kOut);
    const int64_t M = num_rows(out), H = call.input(kData).shape.back(), N = out.shape.back();
    Factor activation(precision, M, H, Side::kLeft);
    const auto activate_as = tanh_form ? activate<Activation::kGeluTanh> : activate<Activation::kGelu>;
    activate_as(floats(call.input(kData)), activation);
    const Factor weight(precision, floats(call.input(kWeight)), N, H);
    matmul(activation.matrix(), weight.transposed(), floats(out), 0, false, floats(call.input(kBias)));
    drop_and_add(dropout_from(call.input(kSeed), dropout), floats(out), floats(call.input(kResidual)), M, N);
  }

  void backward(const BackwardCall& call) const {
    MXTensor& data = call.input(kData);
    const int64_t M = num_rows(data), H = data.shape.back(), N = call.input(kWeight).shape[0];
    const float* const gradient = floats(call.output_gradient(kOut));
    const MaskedGradient masked(dropout_from(call.input(kSeed), dropout), precision, gradient, M, N);
    LinearGradients gradients = linear_gradients(call, kData, kWeight, kBias);
    // The gradient of the activation is made where that of data belongs, unless it must be added to what is there.
    std::optional<Buffer<float>> memory;
    if (gradients.data_request != Request::kWrite) memory.emplace(M * H);
    float* const data_gradient = memory ? memory->data() : gradients.data;
    if (gradients.data_request != Request::kNull) {
      const Factor weight(precision, floats(call.input(kWeight)), N, H);
      matmul(masked.factor().matrix(), weight.matrix(), data_gradient);
    }
    Factor activation(precision, M, H);
    const auto differentiate =
        tanh_form ? activate_backward<Activation::kGeluTanh> : activate_backward<Activation::kGelu>;
    differentiate(floats(data), data_gradient, activation);
    if (memory) pass_gradient(data_gradient, M * H, gradients.data, gradients.data_request);
    gradients.data_request = Request::kNull;  // it is there already
    linear_backward(masked.factor(), masked.values(), activation, {}, gradients);
    pass_gradient(gradient, M * N, floats(call.gradient(kResidual)), call.request(kResidual));
    write_zeros(call, kSeed);
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_gelu_linear_dropout_residual, GeluLinearDropoutResidual);

}  // namespace kogpt2
