#include "few_rows_dots.h"

#include "cpu_operator.h"
#include "dnnl.hpp"
#include "few_rows_blocks.h"
#include "matmul.h"
#include "scratch.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace kogpt2 {

#if defined(__AVX512F__)

bool has_fast_dots() {
  static const bool has = [] {
    __builtin_cpu_init();
    const auto allowed = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
    const auto needed = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
    return __builtin_cpu_is("amd") && (allowed & needed) == needed;
  }();
  return has;
}

namespace {

using Product = RowProduct<uint16_t, uint16_t>;
constexpr int64_t kGroup = 2 * kSixteen;  // values that one instruction multiplies

float float_of_bfloat16(uint16_t value) { return float_of(static_cast<uint32_t>(value) << 16); }

#pragma GCC push_options
#pragma GCC target("avx512bf16")

// As in few_rows.cc. There is an intrinsic because no loop that the compiler knows becomes this instruction.
template <int R, int W>
void multiply_block(const Product& product, int64_t row, int64_t column) {
  const int64_t K = product.K;
  const uint16_t* const data = product.data + row * K;
  const uint16_t* const weight = product.weight + column * K;
  __m512 total[R][W];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) total[r][w] = _mm512_setzero_ps();
  }
  int64_t k = 0;
  for (; k + kGroup <= K; k += kGroup) {
    __m512bh factors[W];
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) {
      if (row == 0) __builtin_prefetch(weight + (w + W) * K + k);
      std::memcpy(&factors[w], weight + w * K + k, sizeof factors[w]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      __m512bh values;
      std::memcpy(&values, data + r * K + k, sizeof values);
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) total[r][w] = _mm512_dpbf16_ps(total[r][w], factors[w], values);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    Sixteen lanes[W];
    std::memcpy(lanes, total[r], sizeof lanes);
    float sums[W];
    sums_of<W>(lanes, sums);
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) {
      for (int64_t rest = k; rest < K; ++rest) {
        sums[w] += float_of_bfloat16(weight[w * K + rest]) * float_of_bfloat16(data[r * K + rest]);
      }
      product.store(row + r, column + w, sums[w]);
    }
  }
}

#pragma GCC pop_options

template <int W>
void multiply_block(const Product& product, int64_t row, int64_t rows, int64_t column) {
  using Function = void (*)(const Product&, int64_t, int64_t);
  static constexpr Function kFunctions[kDataRows] = {multiply_block<1, W>, multiply_block<2, W>, multiply_block<3, W>,
                                                     multiply_block<4, W>, multiply_block<5, W>, multiply_block<6, W>};
  kFunctions[rows - 1](product, row, column);
}

}  // namespace

void multiply_by_dots(const float* data, const void* weight, int64_t M, int64_t N, int64_t K, float* out) {
  Buffer<uint16_t> rounded(M * K);
  round_to_bfloat16(data, rounded.data(), M * K);
  const Product product = {rounded.data(), static_cast<const uint16_t*>(weight), nullptr, M, N, K, out};
  const auto block = [&](int64_t row, int64_t rows, int64_t column) {
    multiply_block<kWeightRows>(product, row, rows, column);
  };
  const auto one = [&](int64_t row, int64_t rows, int64_t column) { multiply_block<1>(product, row, rows, column); };
  for_each_block<kWeightRows>(product, block, one);
}

#else

bool has_fast_dots() { return false; }

void multiply_by_dots(const float*, const void*, int64_t, int64_t, int64_t, float*) {
  fail("no instruction for products of bfloat16");
}

#endif

}  // namespace kogpt2
