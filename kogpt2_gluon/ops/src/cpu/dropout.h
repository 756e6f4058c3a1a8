// Dropout masks on the CPU: rows of multipliers (0, or 1 / keep probability), eight from each Philox call.
#pragma once
#include <algorithm>
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

constexpr int64_t kBlocksAtATime = 16;  // what vector code of any width divides

// words[k][b]: word k of block first + b. A function of its own, since the compiler makes no vector code of this loop
// once it is unrolled into a caller.
__attribute__((noinline)) inline void philox_blocks(const Dropout& dropout, uint64_t first, int64_t count,
                                                    uint32_t words[4][kBlocksAtATime]) {
  const Dropout local = dropout;
#pragma omp simd
  for (int64_t block = 0; block < count; ++block) {
    const PhiloxWords made = philox(local, first + static_cast<uint64_t>(block));
    words[0][block] = made.w0;
    words[1][block] = made.w1;
    words[2][block] = made.w2;
    words[3][block] = made.w3;
  }
}

// mask[i] for elements first .. first + count - 1; `first` is a multiple of 8, and `mask` has room for `count` rounded up
// to one.
inline void fill_mask(const Dropout& dropout, uint64_t first, int64_t count, float* mask) {
  const uint32_t threshold = dropout.threshold;
  const float scale = dropout.scale;
  const int64_t end = (count + kDecisionsPerBlock - 1) / kDecisionsPerBlock;
  for (int64_t begin = 0; begin < end; begin += kBlocksAtATime) {
    alignas(64) uint32_t words[4][kBlocksAtATime];
    philox_blocks(dropout, first / kDecisionsPerBlock + static_cast<uint64_t>(begin), kBlocksAtATime, words);
    alignas(64) uint32_t decisions[kBlocksAtATime][4];  // a block's words side by side, two decisions in each
    for (int64_t block = 0; block < kBlocksAtATime; ++block) {
      for (int k = 0; k < 4; ++k) decisions[block][k] = words[k][block];
    }
    const uint16_t* const halves = reinterpret_cast<const uint16_t*>(decisions);  // little-endian: low half first
    const int64_t room = kDecisionsPerBlock * std::min(kBlocksAtATime, end - begin);
    float* const to = mask + begin * kDecisionsPerBlock;
#pragma omp simd
    for (int64_t i = 0; i < room; ++i) to[i] = halves[i] >= threshold ? scale : 0.0f;
  }
}

}  // namespace kogpt2
