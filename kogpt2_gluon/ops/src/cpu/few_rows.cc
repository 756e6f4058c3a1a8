#include "few_rows.h"

#include <omp.h>

#include <algorithm>
#include <cstring>

#include "scratch.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

// Sixteen floats, which the compiler puts into one register, or into several narrower ones, depending on the CPU.
constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef uint32_t BitLanes __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntLanes __attribute__((vector_size(4 * kLanes)));

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

// How the weight's elements become floats: kVectors vectors for every kVectors * kLanes values. Narrow elements lie
// several to a lane of 32 bits, and one or two plain operations take each of them out: so vector p has every kVectors-th
// value, from value p on. To keep the order would take more operations, which compete with the products; `arrange` puts
// the data into the same order.
struct Float32 {
  using Element = float;
  static constexpr int kVectors = 2;
  static constexpr bool kArranged = false;
  template <int p>
  KOGPT2_INLINE static Lanes vector(const float* from) {
    return load(from + p * kLanes);
  }
  static float value(float element) { return element; }
};

struct Bfloat16 {
  using Element = uint16_t;
  static constexpr int kVectors = 2;
  static constexpr bool kArranged = true;
  template <int p>
  KOGPT2_INLINE static Lanes vector(const uint16_t* from) {
    BitLanes pairs;
    std::memcpy(&pairs, from, sizeof pairs);
    return lanes_of(p ? pairs & 0xFFFF0000u : pairs << 16);
  }
  static float value(uint16_t element) { return float_of(static_cast<uint32_t>(element) << 16); }
};

struct Int8 {
  using Element = int8_t;
  static constexpr int kVectors = 4;
  static constexpr bool kArranged = true;
  template <int p>
  KOGPT2_INLINE static Lanes vector(const int8_t* from) {
    IntLanes fours;
    std::memcpy(&fours, from, sizeof fours);
    return __builtin_convertvector((fours << (24 - 8 * p)) >> 24, Lanes);
  }
  static float value(int8_t element) { return element; }
};

// Puts the values of data (M, K) into the order in which a form's vectors have them; the rest of a row stays.
template <int kVectors>
void arrange(const float* from, int64_t M, int64_t K, float* to) {
  constexpr int64_t kGroup = kVectors * kLanes;
#pragma omp parallel for schedule(static) if (M * K > 1 << 16)
  for (int64_t m = 0; m < M; ++m) {
    const float* row = from + m * K;
    float* place = to + m * K;
    int64_t k = 0;
    for (; k + kGroup <= K; k += kGroup) {
#pragma GCC unroll 4
      for (int p = 0; p < kVectors; ++p) {
#pragma omp simd
        for (int64_t i = 0; i < kLanes; ++i) place[k + p * kLanes + i] = row[k + i * kVectors + p];
      }
    }
    std::copy_n(row + k, K - k, place + k);
  }
}

// The sum of all lanes, by halves: adding one lane after the other would take as long as the products of a row.
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

// The product as a whole. `data` is arranged.
template <typename Form>
struct Product {
  const float* data;
  const typename Form::Element* weight;
  const float* scales;
  int64_t M, N, K;
  float* out;
};

// Adds the products of vector p of W rows of the weight and of R rows of data.
template <typename Form, int p, int R, int W>
KOGPT2_INLINE void add_products(const typename Form::Element* weight, const float* data, int64_t K, Lanes (&total)[R][W]) {
  Lanes factors[W];
#pragma GCC unroll 8
  for (int w = 0; w < W; ++w) factors[w] = Form::template vector<p>(weight + w * K);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const Lanes values = load(data + r * K + p * kLanes);
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) total[r][w] += factors[w] * values;
  }
  if constexpr (p + 1 < Form::kVectors) add_products<Form, p + 1>(weight, data, K, total);
}

// Asks for a group of W rows one or two blocks before they are needed. One row of data reads float32 faster without.
template <typename Form, int R, int W>
KOGPT2_INLINE void prefetch(const typename Form::Element* weight, int64_t K) {
  constexpr int kSize = sizeof(typename Form::Element), kAhead = kSize == 1 && W < 8 ? 2 : 1;
  if (kSize == 4 && R == 1) return;
#pragma GCC unroll 8
  for (int w = 0; w < W; ++w) {
    const auto* const from = weight + (w + kAhead * W) * K;
    __builtin_prefetch(from);
    if (kSize == 4) __builtin_prefetch(from + kLanes);
  }
}

// R rows of data from `row` on, and W rows of the weight from `column` on; both are read once. Whatever R and W are, a
// number of the result gets its products one after another, in one order.
template <typename Form, int R, int W>
void multiply_block(const Product<Form>& product, int64_t row, int64_t column, bool is_first) {
  constexpr int64_t kGroup = Form::kVectors * kLanes;
  const int64_t K = product.K;
  const float* const data = product.data + row * K;
  const typename Form::Element* const weight = product.weight + column * K;
  Lanes total[R][W] = {};
  int64_t k = 0;
  for (; k + kGroup <= K; k += kGroup) {
    if (is_first) prefetch<Form, R, W>(weight + k, K);
    add_products<Form, 0>(weight + k, data + k, K, total);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) {
      float sum = sum_of(total[r][w]);
      for (int64_t rest = k; rest < K; ++rest) sum += Form::value(weight[w * K + rest]) * data[r * K + rest];
      product.out[(row + r) * product.N + column + w] = product.scales ? product.scales[column + w] * sum : sum;
    }
  }
}

constexpr int kDataRows = 6, kWeightRows = 4;  // sums and factors fit the registers of AVX-512
constexpr int kWeightRowsForOne = 8;           // one row of data has a chain of additions for each row of the weight
constexpr int64_t kChunkBytes = 192 << 10;     // of the weight, which stay in the second cache for all rows of data

template <typename Form, int W>
void multiply_block(const Product<Form>& product, int64_t row, int64_t rows, int64_t column) {
  using Function = void (*)(const Product<Form>&, int64_t, int64_t, bool);
  static constexpr Function kFunctions[kDataRows] = {
      multiply_block<Form, 1, W>, multiply_block<Form, 2, W>, multiply_block<Form, 3, W>,
      multiply_block<Form, 4, W>, multiply_block<Form, 5, W>, multiply_block<Form, 6, W>};
  kFunctions[rows - 1](product, row, column, row == 0);
}

// Calls block(row, rows, column) for blocks of W rows of the weight, and multiplies by the last few one by one.
template <int W, typename Form, typename Block>
void for_each_block(const Product<Form>& product, const Block& block) {
  const int64_t M = product.M, N = product.N;
  const int64_t blocks = (M + kDataRows - 1) / kDataRows, rows = (M + blocks - 1) / blocks;
  const int64_t whole = N / W, share = whole / omp_get_max_threads() + 1;
  const int64_t fitting = kChunkBytes / (W * product.K * static_cast<int64_t>(sizeof(*product.weight)));
  const int64_t chunk = std::max<int64_t>(1, std::min(fitting, share)), chunks = (whole + chunk - 1) / chunk;
#pragma omp parallel for schedule(static)
  for (int64_t c = 0; c < chunks; ++c) {
    const int64_t end = std::min(whole, (c + 1) * chunk);
    for (int64_t row = 0; row < M; row += rows) {
      for (int64_t i = c * chunk; i < end; ++i) block(row, std::min(rows, M - row), i * W);
    }
  }
  for (int64_t column = whole * W; column < N; ++column) {
    for (int64_t row = 0; row < M; row += rows) multiply_block<Form, 1>(product, row, std::min(rows, M - row), column);
  }
}

template <typename Form>
void multiply(const Product<Form>& product) {
  if (product.M == 1) {
    for_each_block<kWeightRowsForOne>(product, [&](int64_t, int64_t, int64_t column) {
      multiply_block<Form, 1, kWeightRowsForOne>(product, 0, column, true);
    });
  } else {
    for_each_block<kWeightRows>(product, [&](int64_t row, int64_t rows, int64_t column) {
      multiply_block<Form, kWeightRows>(product, row, rows, column);
    });
  }
}

template <typename Form>
void multiply(const float* data, const RowWeight& weight, int64_t M, int64_t N, int64_t K, float* out) {
  Buffer<float> arranged(Form::kArranged ? M * K : 1);
  if (Form::kArranged) {
    arrange<Form::kVectors>(data, M, K, arranged.data());
    data = arranged.data();
  }
  multiply<Form>({data, static_cast<const typename Form::Element*>(weight.data), weight.scales, M, N, K, out});
}

}  // namespace

void multiply_rows(const float* data, const RowWeight& weight, int64_t M, int64_t N, int64_t K, float* out) {
  switch (weight.form) {
    case RowWeight::kFloat32: return multiply<Float32>(data, weight, M, N, K, out);
    case RowWeight::kBfloat16: return multiply<Bfloat16>(data, weight, M, N, K, out);
    case RowWeight::kInt8: return multiply<Int8>(data, weight, M, N, K, out);
  }
}

}  // namespace kogpt2
