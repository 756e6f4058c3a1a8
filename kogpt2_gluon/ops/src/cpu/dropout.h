// Dropout masks on the CPU: rows of multipliers (0, or 1 / keep probability), eight from each Philox call.
#pragma once
#include <cmath>
#include <cstdint>

#include "../common/philox.h"
#include "operator.h"

namespace kogpt2 {

constexpr int kSeedSize = 64;

// The dropout of `site` with probability p, from the seed array that the graph hands to every operator: 64 values of
// MXNet's own Dropout(ones, p=0.5), which gives 0 or 2 in training and 1 in prediction. MXNet tells an operator of a
// library neither of the two, nor a seed that mx.random.seed would repeat.
inline Dropout dropout_from(const float* seed, const Attributes& attributes) {
  Dropout dropout;
  const double p = attributes.number("p", 0.0);
  if (p < 0.0 || p >= 1.0) fail("p=", p, ": a dropout probability is at least 0 and below 1");
  bool training = false;
  for (int i = 0; i < kSeedSize; ++i) {
    training |= seed[i] != 1.0f;
    if (seed[i] > 0.5f) (i < 32 ? dropout.seed_low : dropout.seed_high) |= 1u << (i % 32);
  }
  dropout.site = static_cast<uint32_t>(attributes.integer("site", 0));
  dropout.threshold = training ? static_cast<uint32_t>(std::lround(p * 65536.0)) : 0u;
  if (dropout.threshold > 65535u) dropout.threshold = 65535u;
  dropout.scale = 65536.0f / static_cast<float>(65536u - dropout.threshold);
  return dropout;
}

// mask[i] for elements first .. first + count - 1; `first` is a multiple of 8, and `mask` has room for `count` rounded up
// to one.
inline void fill_mask(const Dropout& dropout, uint64_t first, int64_t count, float* mask) {
  const int64_t blocks = (count + kDecisionsPerBlock - 1) / kDecisionsPerBlock;
  const uint64_t first_block = first / kDecisionsPerBlock;
#pragma omp simd
  for (int64_t block = 0; block < blocks; ++block) {
    uint32_t words[4];
    philox(dropout, first_block + static_cast<uint64_t>(block), words);
    for (int k = 0; k < kDecisionsPerBlock; ++k) {
      mask[block * kDecisionsPerBlock + k] = decision(words, k) >= dropout.threshold ? dropout.scale : 0.0f;
    }
  }
}

}  // namespace kogpt2
