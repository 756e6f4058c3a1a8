// Dropout masks on the CPU: rows of multipliers (0, or 1 / keep probability), eight from each Philox call.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../common/dropout_attributes.h"
#include "../common/philox.h"
#include "cpu_operator.h"

namespace kogpt2 {

// The dropout that an operator's seed and its attributes ask for.
inline Dropout dropout_from(MXTensor& seed, const DropoutAttributes& attributes) {
  return decode_seed(floats(seed), attributes.probability, attributes.site);
}

// The words of `count` blocks, one block after the other. The dropout is passed by value, `words` is restrict, and this
// is a function of its own, because the compiler makes vector code of the loop only if it knows that `words` overlaps
// nothing, and not after unrolling it into a caller.
__attribute__((noinline)) inline void philox_words(const Dropout dropout, uint64_t first, int64_t count,
                                                   uint32_t* __restrict words) {
  for (int64_t block = 0; block < count; ++block) {
    const PhiloxWords drawn = philox(dropout, first + static_cast<uint64_t>(block));
    words[4 * block] = drawn.w0;
    words[4 * block + 1] = drawn.w1;
    words[4 * block + 2] = drawn.w2;
    words[4 * block + 3] = drawn.w3;
  }
}

// mask[i] for elements first .. first + count - 1. `first` is a multiple of 8, and `mask` has room for `count` rounded
// up to a multiple of 8.
inline void fill_mask(const Dropout& dropout, uint64_t first, int64_t count, float* mask) {
  constexpr int64_t kPiece = 1024;
  uint32_t words[kPiece / 2];
  uint16_t decisions[kPiece];  // the halves of the words, the low one first, as they are in memory
  const uint32_t threshold = dropout.threshold;
  const float scale = dropout.scale;
  const int64_t end = (count + kDecisionsPerBlock - 1) / kDecisionsPerBlock * kDecisionsPerBlock;
  for (int64_t begin = 0; begin < end; begin += kPiece) {
    const int64_t size = std::min(kPiece, end - begin);
    philox_words(dropout, (first + static_cast<uint64_t>(begin)) / kDecisionsPerBlock, size / kDecisionsPerBlock, words);
    std::memcpy(decisions, words, static_cast<size_t>(size) * sizeof(uint16_t));
    float* const to = mask + begin;
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) to[i] = decisions[i] >= threshold ? scale : 0.0f;
  }
}

}  // namespace kogpt2
