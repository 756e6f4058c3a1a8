// Linear maps for generation, where a few rows of data meet a whole matrix: the time is that of reading the matrix, which
// may therefore be kept in bfloat16.
//
// kogpt2_pack_bfloat16(weight) -> packed
//
//   weight (N, K) float32, packed (N, 2 K) uint8: the bytes of each value rounded to bfloat16. (MXNet's library interface
//   has no bfloat16 arrays.)
//
// kogpt2_decode_linear(data, weight, bias; activation) -> out
//
//   out = f(data weight^T + bias), f the identity or gelu
//
// data (..., K), weight (N, K) float32 or (N, 2 K) uint8 as above, bias (N,), out (..., N). activation: none or gelu.
// For up to kFewRows rows everything but the weight is float32, sums too; for more (a prompt) products are matmul's, of
// bfloat16 factors where the weight is packed. There is no gradient.
#include <algorithm>

#include "matmul.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

constexpr int64_t kFewRows = 8;

void no_gradient(const Attributes&, Tensors&, Tensors&) { fail("generation's operators have no gradient"); }

// ---- packing ----------------------------------------------------------------------------------------------------------

void pack_shape(const Attributes&, Shapes& in, Shapes& out) {
  expect_axes("weight", in[0], 2);
  out[0] = {in[0][0], 2 * in[0][1]};
}

MXReturnValue pack_type(const AttributeMap&, std::vector<int>* inputs, std::vector<int>* outputs) {
  return guarded([&] {
    int& type = (*inputs)[0];
    if (type < 0) type = mxnet::ext::kFloat32;
    if (type != mxnet::ext::kFloat32) fail("weight has MXNet's type number ", type, "; expected float32");
    (*outputs)[0] = mxnet::ext::kUint8;
  });
}

void pack(const Attributes&, Tensors& in, Tensors& out) {
  round_to_bfloat16(floats(in[0]), out[0].data<uint16_t>(), in[0].shape[0] * in[0].shape[1]);
}

// ---- products ---------------------------------------------------------------------------------------------------------

MXReturnValue linear_type(const AttributeMap&, std::vector<int>* inputs, std::vector<int>* outputs) {
  return guarded([&] {
    for (size_t i = 0; i < inputs->size(); ++i) {
      int& type = (*inputs)[i];
      if (type < 0) type = mxnet::ext::kFloat32;
      const bool packed = i == 1 && type == mxnet::ext::kUint8;
      if (type != mxnet::ext::kFloat32 && !packed) {
        fail("input ", i, " has MXNet's type number ", type, "; expected float32", i == 1 ? " or packed uint8" : "");
      }
    }
    (*outputs)[0] = mxnet::ext::kFloat32;
  });
}

void linear_shape(const Attributes& attributes, Shapes& in, Shapes& out) {
  const std::string activation = attributes.text("activation", "none");
  if (activation != "none" && activation != "gelu") fail("activation='", activation, "': none or gelu");
  expect_axes("weight", in[1], 2);
  const unsigned K = in[0].back(), N = in[1][0];
  if (in[1][1] != 2 * K) expect_shape("weight", in[1], {N, K});  // 2 K: packed, if its type says so, see below
  expect_shape("bias", in[2], {N});
  out[0] = in[0];
  out[0].back() = N;
}

// Sixteen floats. The compiler makes one register of them, or several narrower ones, as the CPU has it.
constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef uint32_t BitLanes __attribute__((vector_size(4 * kLanes)));
typedef uint16_t HalfLanes __attribute__((vector_size(2 * kLanes)));

KOGPT2_INLINE Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

KOGPT2_INLINE Lanes load(const uint16_t* bfloat16) {
  HalfLanes halves;
  std::memcpy(&halves, bfloat16, sizeof halves);
  const BitLanes bits = __builtin_convertvector(halves, BitLanes) << 16;
  Lanes lanes;
  std::memcpy(&lanes, &bits, sizeof lanes);
  return lanes;
}

inline float as_float(float value) { return value; }
inline float as_float(uint16_t bfloat16) { return float_of(static_cast<uint32_t>(bfloat16) << 16); }

// One row of the weight with R rows of data: R sums at a time, so that the weight is read once.
template <int R, typename Weight>
void dot_rows(const float* data, const Weight* weight, int64_t K, float* sums) {
  Lanes total[R] = {};
  int64_t k = 0;
  for (; k + kLanes <= K; k += kLanes) {
    const Lanes w = load(weight + k);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) total[r] += w * load(data + r * K + k);
  }
  for (int r = 0; r < R; ++r) {
    float sum = 0.0f;
    for (int64_t lane = 0; lane < kLanes; ++lane) sum += total[r][lane];
    for (int64_t rest = k; rest < K; ++rest) sum += as_float(weight[rest]) * data[r * K + rest];
    sums[r] = sum;
  }
}

template <typename Weight>
using DotRows = void (*)(const float*, const Weight*, int64_t, float*);

template <typename Weight>
void few_rows(const float* data, const Weight* weight, const float* bias, int64_t M, int64_t N, int64_t K, bool gelu_too,
              float* out) {
  static constexpr DotRows<Weight> kDots[kFewRows] = {dot_rows<1, Weight>, dot_rows<2, Weight>, dot_rows<3, Weight>,
                                                      dot_rows<4, Weight>, dot_rows<5, Weight>, dot_rows<6, Weight>,
                                                      dot_rows<7, Weight>, dot_rows<8, Weight>};
  const DotRows<Weight> dots = kDots[M - 1];
#pragma omp parallel for schedule(static)
  for (int64_t n = 0; n < N; ++n) {
    float sums[kFewRows];
    dots(data, weight + n * K, K, sums);
    for (int64_t m = 0; m < M; ++m) {
      const float value = sums[m] + bias[n];
      out[m * N + n] = gelu_too ? gelu(value) : value;
    }
  }
}

void many_rows(const float* data, const Matrix& weight, const float* bias, int64_t M, bool gelu_too, float* out) {
  const Precision precision = weight.is_bfloat16 ? Precision::kBfloat16 : Precision::kFloat32;
  const Factor factor(precision, data, M, weight.columns);
  matmul(factor.matrix(), weight.transposed(), out, 0, false, bias);
  if (!gelu_too) return;
  const int64_t count = M * weight.rows;
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < count; ++i) out[i] = gelu(out[i]);
}

void linear(const Attributes& attributes, Tensors& in, Tensors& out) {
  const int64_t M = num_rows(in[0]), K = in[0].shape.back(), N = in[1].shape[0];
  const bool packed = in[1].dtype == mxnet::ext::kUint8, gelu_too = attributes.text("activation", "none") == "gelu";
  const int64_t columns = packed ? in[1].shape[1] / 2 : in[1].shape[1];
  if (columns != K) fail("weight has ", columns, " columns, data has ", K);
  const float *const data = floats(in[0]), *const bias = floats(in[2]);
  if (M > kFewRows) {
    many_rows(data, {in[1].data_ptr, packed, N, K, K, 1}, bias, M, gelu_too, floats(out[0]));
  } else if (packed) {
    few_rows(data, in[1].data<uint16_t>(), bias, M, N, K, gelu_too, floats(out[0]));
  } else {
    few_rows(data, floats(in[1]), bias, M, N, K, gelu_too, floats(out[0]));
  }
}

}  // namespace

REGISTER_OP(kogpt2_pack_bfloat16)
    .setParseAttrs(count<1, 1>)
    .setInferType(pack_type)
    .setInferShape(infer_shape<pack_shape>)
    .setForward(run<pack>, "cpu")
    .setBackward(run<no_gradient>, "cpu");

REGISTER_OP(kogpt2_decode_linear)
    .setParseAttrs(count<3, 1>)
    .setInferType(linear_type)
    .setInferShape(infer_shape<linear_shape>)
    .setForward(run<linear>, "cpu")
    .setBackward(run<no_gradient>, "cpu");

}  // namespace kogpt2
