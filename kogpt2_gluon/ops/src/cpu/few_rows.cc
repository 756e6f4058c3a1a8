#include "few_rows.h"

#include "few_rows_blocks.h"
#include "few_rows_dots.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

constexpr int64_t kLanes = kSixteen;
typedef Sixteen Lanes;
typedef uint32_t BitLanes __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntLanes __attribute__((vector_size(4 * kLanes)));

KOGPT2_INLINE Lanes load(const float* from) { return load_sixteen(from); }

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

// `data` is arranged.
template <typename Form>
using Product = RowProduct<float, typename Form::Element>;

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
void multiply_block(const Product<Form>& product, int64_t row, int64_t column) {
  constexpr int64_t kGroup = Form::kVectors * kLanes;
  const int64_t K = product.K;
  const float* const data = product.data + row * K;
  const typename Form::Element* const weight = product.weight + column * K;
  Lanes total[R][W] = {};
  int64_t k = 0;
  for (; k + kGroup <= K; k += kGroup) {
    if (row == 0) prefetch<Form, R, W>(weight + k, K);
    add_products<Form, 0>(weight + k, data + k, K, total);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    float sums[W];
    sums_of<W>(total[r], sums);
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) {
      for (int64_t rest = k; rest < K; ++rest) sums[w] += Form::value(weight[w * K + rest]) * data[r * K + rest];
      product.store(row + r, column + w, sums[w]);
    }
  }
}

template <typename Form, int W>
void multiply_block(const Product<Form>& product, int64_t row, int64_t rows, int64_t column) {
  using Function = void (*)(const Product<Form>&, int64_t, int64_t);
  static constexpr Function kFunctions[kDataRows] = {
      multiply_block<Form, 1, W>, multiply_block<Form, 2, W>, multiply_block<Form, 3, W>,
      multiply_block<Form, 4, W>, multiply_block<Form, 5, W>, multiply_block<Form, 6, W>};
  kFunctions[rows - 1](product, row, column);
}

template <typename Form>
void multiply(const Product<Form>& product) {
  const auto one = [&](int64_t row, int64_t rows, int64_t column) {
    multiply_block<Form, 1>(product, row, rows, column);
  };
  if (product.M == 1) {
    // A row of the weight is a chain of additions: where they take longer than reading, more rows are needed.
    constexpr int kRows = Form::kVectors > 2 ? 2 * kWeightRows : kWeightRows;
    const auto block = [&](int64_t, int64_t, int64_t column) { multiply_block<Form, 1, kRows>(product, 0, column); };
    return for_each_block<kRows>(product, block, one);
  }
  const auto block = [&](int64_t row, int64_t rows, int64_t column) {
    multiply_block<Form, kWeightRows>(product, row, rows, column);
  };
  for_each_block<kWeightRows>(product, block, one);
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
  if (weight.form == RowWeight::kBfloat16 && has_fast_dots()) return multiply_by_dots(data, weight.data, M, N, K, out);
  switch (weight.form) {
    case RowWeight::kFloat32: return multiply<Float32>(data, weight, M, N, K, out);
    case RowWeight::kBfloat16: return multiply<Bfloat16>(data, weight, M, N, K, out);
    case RowWeight::kInt8: return multiply<Int8>(data, weight, M, N, K, out);
  }
}

}  // namespace kogpt2
