#include "few_rows.h"

#include <algorithm>
#include <cstring>

#include "scratch.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

// Sixteen floats, which the compiler puts into one register, or into several narrower ones, depending on the CPU.
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

// kPair successive values of a row of the weight.
struct Pair {
  Lanes first, second;
};

KOGPT2_INLINE Pair load_pair(const float* from) { return {load(from), load(from + kLanes)}; }

// For bfloat16 the even values come first, then the odd ones: so two plain operations make floats of them. Keeping the
// order would take several operations, which compete with the products. `arrange` puts the data into the same order.
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

// The products of W rows of the weight with R rows of data (arranged, for bfloat16); both are read once. sums (R, W).
template <int R, int W, typename Weight>
void dot_rows(const float* data, const Weight* weight, int64_t K, float* sums) {
  Lanes total[R][W] = {};
  int64_t k = 0;
  for (; k + kPair <= K; k += kPair) {
    Pair row[W];
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) {
      row[w] = load_pair(weight + w * K + k);
      // Asks for the next rows while these are used. In float32 they are two cache lines.
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
void choose_rows(const float* data, const Weight* weight, int64_t M, int64_t N, int64_t K, float* out) {
  using Function = void (*)(const float*, const Weight*, int64_t, int64_t, float*);
  static constexpr Function kFunctions[kFewRows] = {
      few_rows_of<1, Weight>, few_rows_of<2, Weight>, few_rows_of<3, Weight>, few_rows_of<4, Weight>,
      few_rows_of<5, Weight>, few_rows_of<6, Weight>, few_rows_of<7, Weight>, few_rows_of<8, Weight>};
  kFunctions[M - 1](data, weight, N, K, out);
}

}  // namespace

void multiply_few_rows(const float* data, const float* weight, int64_t M, int64_t N, int64_t K, float* out) {
  choose_rows(data, weight, M, N, K, out);
}

void multiply_few_rows(const float* data, const uint16_t* bfloat16_weight, int64_t M, int64_t N, int64_t K,
                       float* out) {
  Buffer<float> arranged(M * K);
  arrange(data, M, K, arranged.data());
  choose_rows(arranged.data(), bfloat16_weight, M, N, K, out);
}

}  // namespace kogpt2
