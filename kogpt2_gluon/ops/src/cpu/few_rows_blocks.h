// What the kernels of few_rows.h share: how rows of data and rows of a weight are cut into blocks.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "threads.h"
#include "vector_math.h"

namespace kogpt2 {

// Sixteen floats, which the compiler puts into one register, or into several narrower ones, depending on the CPU.
constexpr int64_t kSixteen = 16;
typedef float Sixteen __attribute__((vector_size(4 * kSixteen)));

KOGPT2_INLINE Sixteen load_sixteen(const float* from) {
  Sixteen lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

// The sum of all lanes, by halves: adding one lane after the other would take as long as the products of a row.
KOGPT2_INLINE float sum_of(const Sixteen& lanes) {
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

// sums[w] = sum_of(lanes[w]), by the same additions, but for four of them at once.
KOGPT2_INLINE void sums_of_four(const Sixteen* lanes, float* sums) {
#if defined(__AVX512F__)
  typedef int32_t Places __attribute__((vector_size(4 * kSixteen)));
  const auto halves = [](const Sixteen& a, const Sixteen& b) {  // eights of a, then of b
    const Places low = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23};
    return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, low + 8);
  };
  const Sixteen a = halves(lanes[0], lanes[1]), b = halves(lanes[2], lanes[3]);
  const Places low = {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};
  const Sixteen fours = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, low + 4);  // one for each w
  const Places next = {1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14};
  const Places other = {2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13};
  const Sixteen pairs = fours + __builtin_shuffle(fours, next), all = pairs + __builtin_shuffle(pairs, other);
  for (int w = 0; w < 4; ++w) sums[w] = all[4 * w];
#else
  for (int w = 0; w < 4; ++w) sums[w] = sum_of(lanes[w]);
#endif
}

// The sums of W vectors of lanes.
template <int W>
KOGPT2_INLINE void sums_of(const Sixteen* lanes, float* sums) {
  constexpr int kFours = W / 4 * 4;
#pragma GCC unroll 8
  for (int w = 0; w < kFours; w += 4) sums_of_four(lanes + w, sums + w);
#pragma GCC unroll 8
  for (int w = kFours; w < W; ++w) sums[w] = sum_of(lanes[w]);
}

// out (M, N) = data weight^T, as a whole: data (M, K) and weight (N, K) as a kernel reads them.
template <typename Data, typename Weight>
struct RowProduct {
  const Data* data;
  const Weight* weight;
  const float* scales;  // (N,), or null
  int64_t M, N, K;
  float* out;

  int64_t row_bytes() const { return K * static_cast<int64_t>(sizeof(Weight)); }  // of the weight
  void store(int64_t row, int64_t column, float sum) const {
    out[row * N + column] = scales ? scales[column] * sum : sum;
  }
};

constexpr int kDataRows = 6, kWeightRows = 4;  // of a block: sums and factors fit the registers of AVX-512
constexpr int64_t kChunkBytes = 192 << 10;     // of the weight, which stay in the second cache for all rows of data

// Calls block(row, rows, column) for up to kDataRows rows of data, and W rows of the weight from `column` on, and
// one(row, rows, column) for the last few rows of the weight, one by one.
template <int W, typename Product, typename Block, typename One>
void for_each_block(const Product& product, const Block& block, const One& one) {
  const int64_t M = product.M, N = product.N;
  const int64_t blocks = (M + kDataRows - 1) / kDataRows, rows = (M + blocks - 1) / blocks;
  const int64_t whole = N / W, share = whole / omp_get_max_threads() + 1;
  const int64_t fitting = kChunkBytes / (W * product.row_bytes());
  const int64_t chunk = std::max<int64_t>(1, std::min(fitting, share)), chunks = (whole + chunk - 1) / chunk;
#pragma omp parallel for schedule(static) if (worth_threads(M * N * product.K, N * product.K))
  for (int64_t c = 0; c < chunks; ++c) {
    const int64_t end = std::min(whole, (c + 1) * chunk);
    for (int64_t row = 0; row < M; row += rows) {
      for (int64_t i = c * chunk; i < end; ++i) block(row, std::min(rows, M - row), i * W);
    }
  }
  for (int64_t column = whole * W; column < N; ++column) {
    for (int64_t row = 0; row < M; row += rows) one(row, std::min(rows, M - row), column);
  }
}

}  // namespace kogpt2
