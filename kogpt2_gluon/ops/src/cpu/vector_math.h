// Elementary functions without branches, so that the compiler makes vector code of loops that call them, for any
// instruction set that it compiles for. There are no intrinsics.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace kogpt2 {

#define KOGPT2_INLINE inline __attribute__((always_inline))

KOGPT2_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

KOGPT2_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// e**x, to 2 units in the last place: x = n ln 2 + r, with a polynomial of degree 6 for e**r (Cody and Waite's
// reduction). Below -87.3 the result is about 1e-38, not 0; NaN stays NaN.
KOGPT2_INLINE float exp_fast(float x) {
  const float bounded = x > 88.0f ? 88.0f : (x < -87.3f ? -87.3f : x);
  const float n = std::nearbyintf(bounded * 1.44269504f);
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return p * float_of(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23);
}

// The normal distribution's cumulative function and density at x. GELU and its derivative are made of them.
struct Normal {
  float cumulative, density;
};

// erf by Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7), which shares e**(-x*x/2) with the density.
KOGPT2_INLINE Normal normal(float x) {
  const float magnitude = std::fabs(x) * 0.70710678f;
  const float gauss = exp_fast(-0.5f * x * x);
  const float t = 1.0f / (1.0f + 0.3275911f * magnitude);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float tail = 0.5f * p * t * gauss;  // (1 - erf(magnitude)) / 2
  return {x < 0.0f ? tail : 1.0f - tail, 0.39894228f * gauss};
}

// The nearest bfloat16, ties to even; NaN stays NaN.
KOGPT2_INLINE uint16_t to_bfloat16(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t nearest = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : nearest);
}

}  // namespace kogpt2
