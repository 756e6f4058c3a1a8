// Linear maps for generation, where a few rows of data meet a whole matrix. The time is that of reading the matrix,
// which may therefore be kept in bfloat16 (pack_weights.cc).
//
// kogpt2_decode_linear(data, weight, bias, gamma, beta, residual; activation, layer_norm, has_residual) -> out
//
//   out = residual + f(LayerNorm(data) weight^T + bias), where f is the identity or gelu
//
// data (..., K), bias (N,), out (..., N). weight is (N, K) float32, (N, 2 K) uint8 from kogpt2_pack_bfloat16, or
// (bytes,) uint8 from kogpt2_tile_bfloat16. activation: none or gelu. With layer_norm=1, gamma and beta (K,) are
// inputs, and the data is normalised with epsilon 1e-5. With has_residual=1, residual (..., N) is the last input. One
// operator does all this because asking MXNet for an operator takes 20 us: four fewer in each layer count.
// For up to kFewRows rows and a weight that is not tiled, everything but the weight is float32, the sums too
// (few_rows.h). Other products are oneDNN's, with bfloat16 factors where the weight is bfloat16. There is no gradient.
#include "decode_linear.h"

#include <algorithm>

#include "few_rows.h"
#include "layer_norm_row.h"
#include "matmul.h"
#include "scratch.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

constexpr float kEpsilon = 1e-5f;  // LayerNorm's

void multiply_many_rows(const float* data, const Matrix& weight, int64_t M, float* out) {
  const bool in_bfloat16 = weight.element == Element::kBfloat16;
  const Precision precision = in_bfloat16 ? Precision::kBfloat16 : Precision::kFloat32;
  const Factor factor(precision, data, M, weight.columns);
  matmul(factor.matrix(), weight.transposed(), out);
}

struct DecodeLinear : NoGradient {
  enum Input { kData, kWeight, kBias };  // followed by gamma and beta, and by residual, as far as they are inputs
  enum Output { kOut };
  bool layer_norm, has_residual;
  Activation activation;

  explicit DecodeLinear(const Attributes& attributes)
      : layer_norm(attributes.integer("layer_norm", 0, 0) != 0),
        has_residual(attributes.integer("has_residual", 0, 0) != 0),
        activation(activation_of(attributes, "none")) {}

  size_t gamma() const { return kBias + 1; }
  size_t beta() const { return gamma() + 1; }
  size_t residual() const { return kBias + (layer_norm ? 3 : 1); }

  Arrays inputs() const {
    Arrays declared = {{"data", 'f'}, {"weight", 'w'}, {"bias", 'f'}};
    if (layer_norm) declared.insert(declared.end(), {{"gamma", 'f'}, {"beta", 'f'}});
    if (has_residual) declared.push_back({"residual", 'f'});
    return declared;
  }
  Arrays outputs() const { return {{"out", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape data = shapes.input(kData);
    const unsigned K = data.back(), N = shapes.input(kBias, 1)[0];
    settle_weight(shapes, kWeight, N, K);
    if (layer_norm) {
      shapes.settle(gamma(), {K});
      shapes.settle(beta(), {K});
    }
    const Shape out = with_last(data, N);
    if (has_residual) shapes.settle(residual(), out);
    shapes.output(kOut) = out;
  }

  void forward(const ForwardCall& call) const {
    MXTensor &data = call.input(kData), &bias = call.input(kBias);
    Normalization normalization;
    if (layer_norm) normalization = {floats(call.input(gamma())), floats(call.input(beta()))};
    const Epilogue epilogue = {floats(bias), has_residual ? floats(call.input(residual())) : nullptr, activation};
    decode_linear(floats(data), num_rows(data), data.shape.back(), bias.shape[0], call.input(kWeight), normalization,
                  epilogue, floats(call.output(kOut)));
  }
};

}  // namespace

void Epilogue::apply(int64_t M, int64_t N, float* product) const {
  constexpr int64_t kStrip = 512;
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t begin = 0; begin < N; begin += kStrip) {
      apply_strip(begin, std::min(kStrip, N - begin), m * N + begin, product + m * N + begin);
    }
  }
}

// `count` values of a row, from `column` on; `offset` is their place in the whole product.
void Epilogue::apply_strip(int64_t column, int64_t count, int64_t offset, float* values) const {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) values[i] += bias[column + i];
  if (activation == Activation::kGelu) activate_row<Activation::kGelu>(count, values, values);
  if (activation == Activation::kGeluTanh) activate_row<Activation::kGeluTanh>(count, values, values);
  if (residual) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) values[i] += residual[offset + i];
  }
}

void decode_linear(const float* data, int64_t M, int64_t K, int64_t N, MXTensor& weight,
                   const Normalization& normalization, const Epilogue& epilogue, float* out) {
  const bool tiled = weight.shape.size() == 1, packed = !tiled && weight.dtype == mxnet::ext::kUint8;
  const int64_t columns = tiled ? K : packed ? weight.shape[1] / 2 : weight.shape[1];
  if (columns != K) fail("weight has ", columns, " columns, data has ", K);
  const bool normalizes = normalization.gamma != nullptr;
  Buffer<float> normalized(normalizes ? M * K : 1);
  if (normalizes) {
#pragma omp parallel for schedule(static) if (M > kFewRows)
    for (int64_t m = 0; m < M; ++m) {
      normalize_row(data + m * K, normalization.gamma, normalization.beta, K, kEpsilon, normalized.data() + m * K);
    }
    data = normalized.data();
  }
  if (tiled) {
    const Factor factor(Element::kBfloat16, data, M, K);
    matmul_tiled(factor.matrix(), weight.data_ptr, N, out);
  } else if (M > kFewRows) {
    multiply_many_rows(data, {weight.data_ptr, packed ? Element::kBfloat16 : Element::kFloat, N, K, K, 1}, M, out);
  } else if (packed) {
    multiply_few_rows(data, weight.data<uint16_t>(), M, N, K, out);
  } else {
    multiply_few_rows(data, weight.data<float>(), M, N, K, out);
  }
  epilogue.apply(M, N, out);
}

void settle_weight(ShapeInference& shapes, size_t weight, unsigned N, unsigned K) {
  const Shape& shape = shapes.input(weight);
  if (shape.size() == 1) {
    const Shape tiled = {static_cast<unsigned>(tiled_bytes(K, N))};
    if (shape != tiled) fail("tiled weight has shape ", to_text(shape), ", expected ", to_text(tiled));
  } else if (shape != Shape{N, 2 * K}) {  // packed, if its type says so: decode_linear looks at that
    shapes.settle(weight, {N, K});
  }
}

KOGPT2_OPERATOR(kogpt2_decode_linear, DecodeLinear);

}  // namespace kogpt2
