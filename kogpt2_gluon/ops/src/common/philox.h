// Dropout's random numbers: Philox4x32-7 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), a
// generator without state. A function of (seed, site, i) decides if element i of dropout `site` is kept. So no mask is
// stored, the backward pass draws the forward pass's mask again, and CPU and GPU draw the same one.
//
// One call gives 128 bits: eight decisions of 16 bits, for elements 8j .. 8j + 7. Element i is kept if its 16 bits are
// at least `threshold` = round(p * 65536). A kept value is scaled by 65536 / (65536 - threshold), the inverse of the
// probability that this threshold really gives.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define KOGPT2_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define KOGPT2_HOST_DEVICE inline __attribute__((always_inline))
#endif
#ifdef __CUDA_ARCH__
#define KOGPT2_UNROLL _Pragma("unroll")
#else
#define KOGPT2_UNROLL _Pragma("GCC unroll 7")
#endif

namespace kogpt2 {

constexpr int kDecisionsPerBlock = 8;

// The mask of one dropout site. With p = 0, or in prediction mode, `threshold` is 0: everything is kept, with scale 1.
struct Dropout {
  uint32_t seed_low = 0, seed_high = 0;
  uint32_t site = 0;       // which dropout of the network
  uint32_t threshold = 0;  // of 65536
  float scale = 1.0f;

  KOGPT2_HOST_DEVICE bool active() const { return threshold != 0; }
};

constexpr int kSeedSize = 64;

// The dropout of `site`, from the seed array that the graph hands to every operator. It has 64 values of MXNet's own
// Dropout(ones, p=0.5), which gives 0 or 2 in training, one bit each, and 1 in prediction. An operator of a library
// does not learn from MXNet if this is training, and gets no seed that mx.random.seed would repeat. `probability` is
// that of being dropped, below 1.
KOGPT2_HOST_DEVICE Dropout decode_seed(const float* seed, double probability, uint32_t site) {
  Dropout dropout;
  bool training = false;
  for (int i = 0; i < kSeedSize; ++i) {
    training |= seed[i] != 1.0f;
    const uint32_t bit = seed[i] > 0.5f ? 1u << (i % 32) : 0u;
    if (i < 32) {
      dropout.seed_low |= bit;
    } else {
      dropout.seed_high |= bit;
    }
  }
  dropout.site = site;
  const uint32_t threshold = static_cast<uint32_t>(probability * 65536.0 + 0.5);
  dropout.threshold = training ? (threshold < 65535u ? threshold : 65535u) : 0u;
  dropout.scale = 65536.0f / static_cast<float>(65536u - dropout.threshold);
  return dropout;
}

KOGPT2_HOST_DEVICE uint32_t multiply_high(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}

struct PhiloxWords {
  uint32_t w0, w1, w2, w3;
};

// The 128 bits of block j.
KOGPT2_HOST_DEVICE PhiloxWords philox(const Dropout& dropout, uint64_t block) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32), c2 = dropout.site, c3 = 0;
  uint32_t k0 = dropout.seed_low, k1 = dropout.seed_high;
KOGPT2_UNROLL
  for (int round = 0; round < 7; ++round) {
    const uint32_t high0 = multiply_high(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const uint32_t high1 = multiply_high(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

KOGPT2_HOST_DEVICE void philox(const Dropout& dropout, uint64_t block, uint32_t words[4]) {
  const PhiloxWords made = philox(dropout, block);
  words[0] = made.w0, words[1] = made.w1, words[2] = made.w2, words[3] = made.w3;
}

// Decision k (0 .. 7) of a block: 16 of its bits, from 0 to 65535.
KOGPT2_HOST_DEVICE uint32_t decision(const uint32_t words[4], int k) { return (words[k >> 1] >> (16 * (k & 1))) & 0xFFFFu; }

// 0 or the scale, for element `index`. This is slow, one element at a time; kernels take whole blocks.
KOGPT2_HOST_DEVICE float keep(const Dropout& dropout, uint64_t index) {
  if (!dropout.active()) return 1.0f;
  uint32_t words[4];
  philox(dropout, index / kDecisionsPerBlock, words);
  return decision(words, static_cast<int>(index % kDecisionsPerBlock)) >= dropout.threshold ? dropout.scale : 0.0f;
}

}  // namespace kogpt2
