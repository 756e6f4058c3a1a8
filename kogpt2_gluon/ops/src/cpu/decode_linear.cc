// Linear maps for generation, where a few rows of data meet a whole matrix. The time is that of reading the matrix,
// which may therefore be kept in bfloat16 (pack_weights.cc).
//
// kogpt2_decode_linear(data, weight, bias, gamma, beta, residual; activation, layer_norm, has_residual) -> out
//
//   out = residual + f(LayerNorm(data) weight^T + bias), where f is the identity or gelu
//
// data (..., K), bias (N,), out (..., N). weight is one of
//   (N, K) float32
//   (N, 2 K) uint8 from kogpt2_pack_bfloat16
//   (N + ceil(4 N / K), K) uint8 from kogpt2_pack_int8: K int8 for each row, then N float32 scales of the rows
//   (bytes,) uint8 from kogpt2_pack_codes: binary codes of 1 to 4 bits, with float32 scales (binary_codes.h)
// activation: none or gelu. With layer_norm=1, gamma and beta (K,) are inputs, and the data is normalised with epsilon
// 1e-5. With has_residual=1, residual (..., N) is the last input. One operator does all this because asking MXNet for an
// operator takes 20 us: four fewer in each layer count.
// For up to 32 rows the product is that of few_rows.h, in which all but the weight is float32; with bfloat16 factors, where
// the processor is fast at them, it is for up to 128 rows. Other products are by the kernel that kernels.h chooses, in the
// precision of the weight, or in `precision` for a weight in int8 or in codes. There is no gradient.
#include "decode_linear.h"

#include <algorithm>
#include <optional>

#include "binary_codes.h"
#include "few_rows.h"
#include "few_rows_dots.h"
#include "layer_norm_row.h"
#include "matmul.h"
#include "scratch.h"
#include "threads.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

// A weight of a map from K to N, as its shape and type say.
enum class Form { kFloat32, kBfloat16, kInt8, kCodes };

CodedWeight codes_of(const MXTensor& weight) {
  if (weight.dtype != mxnet::ext::kUint8) fail("a weight with one axis is ", weight.shape[0], " numbers, not codes");
  return coded_weight(weight.data_ptr, weight.shape[0]);
}

Form form_of(const MXTensor& weight, int64_t N, int64_t K) {
  const std::vector<int64_t>& shape = weight.shape;
  const bool in_bytes = weight.dtype == mxnet::ext::kUint8;
  if (shape.size() == 1) {
    const CodesLayout layout = codes_of(weight).layout;
    if (layout.N != N || layout.K != K) fail("codes of ", layout.N, " x ", layout.K, " are no map from ", K, " to ", N);
    return Form::kCodes;
  }
  if (in_bytes && shape[0] == N && shape[1] == 2 * K) return Form::kBfloat16;
  if (in_bytes && shape[0] == N + scale_rows(N, K) && shape[1] == K) return Form::kInt8;
  if (in_bytes) fail("a packed weight of ", shape[0], " x ", shape[1], " bytes is no map from ", K, " to ", N);
  if (shape[1] != K) fail("weight has ", shape[1], " columns, data has ", K);
  if (shape[0] != N) fail("weight has ", shape[0], " rows, bias has ", N);
  return Form::kFloat32;
}

// The most rows of a text that multiply_rows() multiplies. oneDNN's products have to bring the weight into another order
// first, so with a weight in bfloat16 both take about the same time here.
int64_t few_rows(Form form) { return form == Form::kBfloat16 && has_fast_dots() ? 128 : 32; }

// The weight as multiply_rows() takes it.
RowWeight row_weight(Form form, const void* data, int64_t N, int64_t K) {
  if (form == Form::kFloat32) return {RowWeight::kFloat32, data};
  if (form == Form::kBfloat16) return {RowWeight::kBfloat16, data};
  return {RowWeight::kInt8, data, reinterpret_cast<const float*>(static_cast<const int8_t*>(data) + N * K)};
}

void restore_row(const RowWeight& weight, int64_t n, int64_t K, float* values) {
  const int8_t* const bytes = static_cast<const int8_t*>(weight.data) + n * K;
  const float scale = weight.scales[n];
#pragma omp simd
  for (int64_t k = 0; k < K; ++k) values[k] = scale * static_cast<float>(bytes[k]);
}

// Makes a factor of a product of the rows (K,) of a weight, which restore_row(n, values) writes.
template <typename RestoreRow>
void restore(int64_t K, int64_t N, const RestoreRow& restore_row, Factor& factor) {
#pragma omp parallel
  {
    Buffer<float> row(K);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < N; ++n) {
      restore_row(n, row.data());
      factor.store_row(n, row.data());
    }
  }
}

// out = data weight^T for each part, which has rows enough for oneDNN.
void multiply_many_rows(const float* data, const std::vector<Part>& parts, int64_t K, int64_t N, Form form,
                        MXTensor& weight, Precision precision, float* out) {
  const bool is_stored = form == Form::kFloat32 || form == Form::kBfloat16;
  if (is_stored) precision = form == Form::kBfloat16 ? Precision::kBfloat16 : Precision::kFloat32;
  std::optional<Factor> unpacked;
  Matrix matrix = {weight.data_ptr, form == Form::kBfloat16 ? Element::kBfloat16 : Element::kFloat, N, K, K, 1};
  if (!is_stored) unpacked.emplace(precision, N, K), matrix = unpacked->matrix();
  if (form == Form::kInt8) {
    const RowWeight rows = row_weight(form, weight.data_ptr, N, K);
    restore(K, N, [&](int64_t n, float* values) { restore_row(rows, n, K, values); }, *unpacked);
  }
  if (form == Form::kCodes) {
    const CodedWeight codes = codes_of(weight);
    restore(K, N, [&](int64_t n, float* values) { restore_row(codes, n, values); }, *unpacked);
  }
  for (const Part& part : parts) {
    const Factor factor(precision, data + part.begin * K, part.count, K);
    matmul(factor.matrix(), matrix.transposed(), out + part.begin * N);
  }
}

// out (M, N) = data weight^T for few rows of data.
void multiply_few_rows(const float* data, int64_t M, int64_t K, int64_t N, Form form, const MXTensor& weight, float* out) {
  if (form == Form::kCodes) return multiply_by_codes(data, codes_of(weight), M, out);
  multiply_rows(data, row_weight(form, weight.data_ptr, N, K), M, N, K, out);
}

struct DecodeLinear : NoGradient {
  enum Input { kData, kWeight, kBias };  // followed by gamma and beta, and by residual, as far as they are inputs
  enum Output { kOut };
  bool layer_norm, has_residual;
  Activation activation;
  Precision precision;

  explicit DecodeLinear(const Attributes& attributes)
      : layer_norm(attributes.integer("layer_norm", 0, 0) != 0),
        has_residual(attributes.integer("has_residual", 0, 0) != 0),
        activation(activation_of(attributes, "none")),
        precision(precision_of(attributes)) {}

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
    decode_linear(floats(data), {{0, num_rows(data)}}, data.shape.back(), bias.shape[0], call.input(kWeight),
                  precision, normalization, epilogue, floats(call.output(kOut)));
  }
};

}  // namespace

void Epilogue::apply(int64_t M, int64_t N, float* product) const {
  constexpr int64_t kStrip = 512;
#pragma omp parallel for collapse(2) schedule(static) if (worth_threads(M * N * kElementary))
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

void decode_linear(const float* data, const std::vector<Part>& parts, int64_t K, int64_t N, MXTensor& weight,
                   Precision precision, const Normalization& normalization, const Epilogue& epilogue, float* out) {
  const int64_t M = parts.back().begin + parts.back().count;
  const Form form = form_of(weight, N, K);
  const bool normalizes = normalization.gamma != nullptr;
  Buffer<float> normalized(normalizes ? M * K : 1);
  if (normalizes) {
#pragma omp parallel for schedule(static) if (worth_threads(M * K * kElementary))
    for (int64_t m = 0; m < M; ++m) {
      normalize_row(data + m * K, normalization.gamma, normalization.beta, K, kEpsilon, normalized.data() + m * K);
    }
    data = normalized.data();
  }
  std::vector<Part> many;
  for (size_t i = 0; i < parts.size();) {
    Part together = parts[i++];
    if (together.count > few_rows(form)) {
      many.push_back(together);
      continue;
    }
    for (; i < parts.size() && parts[i].count <= few_rows(form); ++i) together.count += parts[i].count;
    multiply_few_rows(data + together.begin * K, together.count, K, N, form, weight, out + together.begin * N);
  }
  if (!many.empty()) multiply_many_rows(data, many, K, N, form, weight, precision, out);
  epilogue.apply(M, N, out);
}

void settle_weight(ShapeInference& shapes, size_t weight, unsigned N, unsigned K) {
  if (shapes.input(weight).size() == 1) return;  // codes say themselves what they are: form_of() reads it
  const Shape& shape = shapes.input(weight, 2);
  // The two that are packed must be so by type as well: form_of() looks at that.
  const bool is_packed = shape == Shape{N, 2 * K} || shape == Shape{N + static_cast<unsigned>(scale_rows(N, K)), K};
  if (!is_packed) shapes.settle(weight, {N, K});
}

KOGPT2_OPERATOR(kogpt2_decode_linear, DecodeLinear);

}  // namespace kogpt2
