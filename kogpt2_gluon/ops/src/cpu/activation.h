// The two forms of GELU as x c(x), with the derivative c(x) + x d(x): GPT-1 and KoGPT-2 have the erf form, where c is
// the normal distribution's cumulative function; OpenAI's GPT-2 has the tanh form, which approximates it.
#pragma once
#include "cpu_operator.h"
#include "vector_math.h"

namespace kogpt2 {

enum class Activation { kNone, kGelu, kGeluTanh };

inline Activation activation_of(const Attributes& attributes, const char* otherwise) {
  const std::string name = attributes.text("activation", otherwise);
  if (name == "none") return Activation::kNone;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  fail("activation='", name, "': none, gelu or gelu_tanh");
}

// c and d of the tanh form: c(x) = (1 + tanh u) / 2 = 1 / (1 + e**(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
KOGPT2_INLINE Normal nearly_normal(float x) {
  const float square = x * x;
  const float u = 0.79788456f * x * (1.0f + 0.044715f * square);
  const float cumulative = 1.0f / (1.0f + exp_fast(-2.0f * u));
  const float slope = 0.79788456f * (1.0f + 0.134145f * square);
  return {cumulative, 2.0f * cumulative * (1.0f - cumulative) * slope};
}

template <Activation form>
KOGPT2_INLINE Normal normal_for(float x) {
  static_assert(form != Activation::kNone, "the identity needs no such function");
  return form == Activation::kGelu ? normal(x) : nearly_normal(x);
}

// gelu of `count` values, in place.
template <Activation form>
inline void activate_row(int64_t count, const float* from, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] * normal_for<form>(from[i]).cumulative;
}

}  // namespace kogpt2
