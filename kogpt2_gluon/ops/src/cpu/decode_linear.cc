// Linear maps for generation, where a few rows of data meet a whole matrix: the time is that of reading the matrix, which
// may therefore be kept in bfloat16.
//
// kogpt2_pack_bfloat16(weight) -> packed
//
//   weight (N, K) float32, packed (N, 2 K) uint8: the bytes of each value rounded to bfloat16. (MXNet's library interface
//   has no bfloat16 arrays.)
//
// kogpt2_tile_bfloat16(weight) -> tiled
//
//   the same values as (bytes,) uint8, in the order that oneDNN reads fastest here: what pays for more than a few rows.
//
// kogpt2_decode_linear(data, weight, bias, gamma, beta, residual; activation, layer_norm, residual) -> out
//
//   out = residual + f(LayerNorm(data) weight^T + bias), f the identity or gelu
//
// data (..., K), weight (N, K) float32, or uint8 as above, bias (N,), out (..., N). activation: none or gelu.
// With layer_norm=1 gamma and beta (K,) are inputs and the data is normalised, epsilon 1e-5; with residual=1 residual
// (..., N) is the last input: where an operator takes 20 us to be asked for, four fewer a layer count.
// For up to kFewRows rows and a weight that is not tiled everything but the weight is float32, sums too; else products are
// oneDNN's, of bfloat16 factors where the weight is. There is no gradient.
#include <algorithm>

#include "decode_linear.h"
#include "layer_norm_row.h"
#include "matmul.h"
#include "scratch.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

constexpr int64_t kFewRows = 8;
constexpr float kEpsilon = 1e-5f;  // of LayerNorm

void no_gradient(const Attributes&, Tensors&, Tensors&) { fail("generation's operators have no gradient"); }

// ---- packing ----------------------------------------------------------------------------------------------------------

void pack_shape(const Attributes&, Shapes& in, Shapes& out) {
  expect_axes("weight", in[0], 2);
  out[0] = {in[0][0], 2 * in[0][1]};
}

void tile_shape(const Attributes&, Shapes& in, Shapes& out) {
  expect_axes("weight", in[0], 2);
  out[0] = {static_cast<unsigned>(tiled_bytes(in[0][1], in[0][0]))};
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

void tile(const Attributes&, Tensors& in, Tensors& out) {
  const Factor rounded(Precision::kBfloat16, floats(in[0]), in[0].shape[0], in[0].shape[1]);
  kogpt2::tile(rounded.transposed(), out[0].data_ptr);
}

// ---- products ---------------------------------------------------------------------------------------------------------

MXReturnValue linear_type(const AttributeMap&, std::vector<int>* inputs, std::vector<int>* outputs) {
  return guarded([&] {
    for (size_t i = 0; i < inputs->size(); ++i) {
      int& type = (*inputs)[i];
      if (i == 1) {
        expect_weight_type(type, i);
        continue;
      }
      if (type < 0) type = mxnet::ext::kFloat32;
      if (type != mxnet::ext::kFloat32) fail("input ", i, " has MXNet's type number ", type, "; expected float32");
    }
    (*outputs)[0] = mxnet::ext::kFloat32;
  });
}

// Which inputs there are, and what comes behind the product.
struct Form {
  bool layer_norm, residual, gelu;

  explicit Form(const Attributes& attributes)
      : layer_norm(attributes.integer("layer_norm", 0, 0) != 0),
        residual(attributes.integer("residual", 0, 0) != 0),
        gelu(attributes.text("activation", "none") == "gelu") {
    const std::string activation = attributes.text("activation", "none");
    if (activation != "none" && !gelu) fail("activation='", activation, "': none or gelu");
  }

  int num_inputs() const { return 3 + (layer_norm ? 2 : 0) + (residual ? 1 : 0); }
};

MXReturnValue count_inputs(const AttributeMap& map, int* num_inputs, int* num_outputs) {
  return guarded([&] {
    *num_inputs = Form(Attributes(map)).num_inputs();
    *num_outputs = 1;
  });
}

void linear_shape(const Attributes& attributes, Shapes& in, Shapes& out) {
  const Form form(attributes);
  expect_axes("bias", in[2], 1);
  const unsigned K = in[0].back(), N = in[2][0];
  expect_weight(in[1], N, K);
  if (form.layer_norm) {
    expect_shape("gamma", in[3], {K});
    expect_shape("beta", in[4], {K});
  }
  out[0] = in[0];
  out[0].back() = N;
  if (form.residual) expect_shape("residual", in.back(), out[0]);
}

// What becomes of a product, in place.
struct Finish {
  const float *bias, *residual;  // residual: null if there is none
  bool gelu_too;

  // product: (M, N).
  void operator()(int64_t M, int64_t N, float* product) const {
    constexpr int64_t kStrip = 512;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t m = 0; m < M; ++m) {
      for (int64_t begin = 0; begin < N; begin += kStrip) {
        strip(begin, std::min(kStrip, N - begin), m * N + begin, product + m * N + begin);
      }
    }
  }

 private:
  // `count` values from column n of a row; `at`: where they are in all of the product.
  void strip(int64_t n, int64_t count, int64_t at, float* values) const {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) values[i] += bias[n + i];
    if (gelu_too) {
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) values[i] = gelu(values[i]);
    }
    if (residual) {
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) values[i] += residual[at + i];
    }
  }
};

// Sixteen floats. The compiler makes one register of them, or several narrower ones, as the CPU has it.
constexpr int64_t kLanes = 16, kPair = 2 * kLanes;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef uint32_t BitLanes __attribute__((vector_size(4 * kLanes)));

KOGPT2_INLINE Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

KOGPT2_INLINE Lanes lanes_of(const BitLanes& bits) {
  Lanes lanes;
  std::memcpy(&lanes, &bits, sizeof lanes);
  return lanes;
}

// kPair values of a weight's row.
struct Pair {
  Lanes first, second;
};

KOGPT2_INLINE Pair load_pair(const float* from) { return {load(from), load(from + kLanes)}; }

// Of bfloat16 the even ones come first, then the odd ones: so two plain operations make floats of them, where keeping
// their order takes several that compete with the products. `arrange` puts the data into the same order.
KOGPT2_INLINE Pair load_pair(const uint16_t* bfloat16) {
  BitLanes pairs;
  std::memcpy(&pairs, bfloat16, sizeof pairs);
  return {lanes_of(pairs << 16), lanes_of(pairs & 0xFFFF0000u)};
}

void arrange(const float* from, int64_t M, int64_t K, float* to) {
  for (int64_t m = 0; m < M; ++m, from += K, to += K) {
    int64_t k = 0;
    for (; k + kPair <= K; k += kPair) {
#pragma omp simd
      for (int64_t i = 0; i < kLanes; ++i) {
        to[k + i] = from[k + 2 * i];
        to[k + kLanes + i] = from[k + 2 * i + 1];
      }
    }
    std::copy_n(from + k, K - k, to + k);
  }
}

inline float as_float(float value) { return value; }
inline float as_float(uint16_t bfloat16) { return float_of(static_cast<uint32_t>(bfloat16) << 16); }

// The sum of all lanes, by halves: one lane after the other would take as long as the products of a row.
KOGPT2_INLINE float sum_of(const Lanes& lanes) {
  typedef float Eight __attribute__((vector_size(32)));
  typedef float Four __attribute__((vector_size(16)));
  Eight eights[2];
  std::memcpy(eights, &lanes, sizeof eights);
  const Eight eight = eights[0] + eights[1];
  Four fours[2];
  std::memcpy(fours, &eight, sizeof fours);
  const Four four = fours[0] + fours[1];
  return (four[0] + four[1]) + (four[2] + four[3]);
}

// `W` rows of the weight with R rows of data (arranged, for bfloat16), so that both are read once. sums (R, W).
template <int R, int W, typename Weight>
void dot_rows(const float* data, const Weight* weight, int64_t K, float* sums) {
  Lanes total[R][W] = {};
  int64_t k = 0;
  for (; k + kPair <= K; k += kPair) {
    Pair row[W];
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) {
      row[w] = load_pair(weight + w * K + k);
      // The next rows, on their way from memory while these are used: float32 has two cache lines here.
      __builtin_prefetch(weight + (w + W) * K + k);
      if (sizeof(Weight) == 4) __builtin_prefetch(weight + (w + W) * K + k + kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Lanes first = load(data + r * K + k), second = load(data + r * K + k + kLanes);
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) total[r][w] += row[w].first * first;
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) total[r][w] += row[w].second * second;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) {
      float sum = sum_of(total[r][w]);
      for (int64_t rest = k; rest < K; ++rest) sum += as_float(weight[w * K + rest]) * data[r * K + rest];
      sums[r * W + w] = sum;
    }
  }
}

template <int R, typename Weight>
void few_rows_of(const float* data, const Weight* weight, int64_t N, int64_t K, float* out) {
  constexpr int kWeightRows = R <= 4 ? 3 : 2;  // sums and factors fit the registers of AVX-512
  const auto store = [&](int64_t n, int width, const float* sums) {
    for (int r = 0; r < R; ++r) {
      for (int w = 0; w < width; ++w) out[r * N + n + w] = sums[r * width + w];
    }
  };
  const int64_t whole = N / kWeightRows;
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < whole; ++block) {
    float sums[R * kWeightRows];
    dot_rows<R, kWeightRows>(data, weight + block * kWeightRows * K, K, sums);
    store(block * kWeightRows, kWeightRows, sums);
  }
  for (int64_t n = whole * kWeightRows; n < N; ++n) {
    float sums[R];
    dot_rows<R, 1>(data, weight + n * K, K, sums);
    store(n, 1, sums);
  }
}

template <typename Weight>
void few_rows(const float* data, const Weight* weight, int64_t M, int64_t N, int64_t K, float* out) {
  using Function = void (*)(const float*, const Weight*, int64_t, int64_t, float*);
  static constexpr Function kFunctions[kFewRows] = {
      few_rows_of<1, Weight>, few_rows_of<2, Weight>, few_rows_of<3, Weight>, few_rows_of<4, Weight>,
      few_rows_of<5, Weight>, few_rows_of<6, Weight>, few_rows_of<7, Weight>, few_rows_of<8, Weight>};
  kFunctions[M - 1](data, weight, N, K, out);
}

void many_rows(const float* data, const Matrix& weight, int64_t M, float* out) {
  const Precision precision = weight.is_bfloat16 ? Precision::kBfloat16 : Precision::kFloat32;
  const Factor factor(precision, data, M, weight.columns);
  matmul(factor.matrix(), weight.transposed(), out);
}

void linear(const Attributes& attributes, Tensors& in, Tensors& out) {
  const Form form(attributes);
  Around around;
  around.gelu = form.gelu;
  if (form.layer_norm) around.gamma = floats(in[3]), around.beta = floats(in[4]);
  if (form.residual) around.residual = floats(in.back());
  decode_linear(floats(in[0]), num_rows(in[0]), in[0].shape.back(), in[1], in[2], around, floats(out[0]));
}

}  // namespace

void decode_linear(const float* data, int64_t M, int64_t K, MXTensor& weight, MXTensor& bias,
                   const Around& around, float* out) {
  const int64_t N = bias.shape[0];
  const bool tiled = weight.shape.size() == 1, packed = !tiled && weight.dtype == mxnet::ext::kUint8;
  const int64_t columns = tiled ? K : packed ? weight.shape[1] / 2 : weight.shape[1];
  if (columns != K) fail("weight has ", columns, " columns, data has ", K);
  Buffer<float> normalized(around.gamma ? M * K : 1);
  if (around.gamma) {
#pragma omp parallel for schedule(static) if (M > kFewRows)
    for (int64_t m = 0; m < M; ++m) {
      normalize_row(data + m * K, around.gamma, around.beta, K, kEpsilon, normalized.data() + m * K);
    }
    data = normalized.data();
  }
  if (tiled) {
    const Factor factor(Precision::kBfloat16, data, M, K);
    matmul_tiled(factor.matrix(), weight.data_ptr, N, out);
  } else if (M > kFewRows) {
    many_rows(data, {weight.data_ptr, packed, N, K, K, 1}, M, out);
  } else if (packed) {
    Buffer<float> arranged(M * K);
    arrange(data, M, K, arranged.data());
    few_rows(arranged.data(), weight.data<uint16_t>(), M, N, K, out);
  } else {
    few_rows(data, weight.data<float>(), M, N, K, out);
  }
  const Finish finish = {bias.data<float>(), around.residual, around.gelu};
  finish(M, N, out);
}

void expect_weight(const Shape& weight, unsigned N, unsigned K) {
  if (weight.size() == 1) {
    expect_shape("tiled weight", weight, {static_cast<unsigned>(tiled_bytes(K, N))});
  } else if (weight != Shape{N, 2 * K}) {  // packed, if its type says so, which decode_linear looks at
    expect_shape("weight", weight, {N, K});
  }
}

void expect_weight_type(int& type, size_t input) {
  if (type < 0) type = mxnet::ext::kFloat32;
  if (type != mxnet::ext::kFloat32 && type != mxnet::ext::kUint8) {
    fail("input ", input, " has MXNet's type number ", type, "; expected float32 or packed uint8");
  }
}

REGISTER_OP(kogpt2_pack_bfloat16)
    .setParseAttrs(count<1, 1>)
    .setInferType(pack_type)
    .setInferShape(infer_shape<pack_shape>)
    .setForward(run<pack>, "cpu")
    .setBackward(run<no_gradient>, "cpu");

REGISTER_OP(kogpt2_tile_bfloat16)
    .setParseAttrs(count<1, 1>)
    .setInferType(pack_type)
    .setInferShape(infer_shape<tile_shape>)
    .setForward(run<tile>, "cpu")
    .setBackward(run<no_gradient>, "cpu");

REGISTER_OP(kogpt2_decode_linear)
    .setParseAttrs(count_inputs)
    .setInferType(linear_type)
    .setInferShape(infer_shape<linear_shape>)
    .setForward(run<linear>, "cpu")
    .setBackward(run<no_gradient>, "cpu");

}  // namespace kogpt2
