// The arithmetic of the kernels, element by element in float32, for the GPU and for the host, where tests run it.
#pragma once
#include <cmath>
#include <cstdint>

#include "../common/philox.h"

namespace kogpt2 {

constexpr int kPack = 8;  // neighbouring elements that one thread works on: 128 bits of float16, and one Philox block
static_assert(kPack == kDecisionsPerBlock, "a pack of elements draws one block of dropout decisions");

// The GPU's own approximations: an error of 2 units in the last place near 0, growing with |x| where e**x is tiny.
KOGPT2_HOST_DEVICE float exponential(float x) {
#ifdef __CUDA_ARCH__
  return __expf(x);
#else
  return std::exp(x);
#endif
}

KOGPT2_HOST_DEVICE float divide(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

// ---- dropout --------------------------------------------------------------------------------------------------------

// The multipliers of the 8 elements of a Philox block.
KOGPT2_HOST_DEVICE void keep_pack(const Dropout& dropout, uint64_t block, float mask[kPack]) {
  uint32_t words[4];
  philox(dropout, block, words);
  for (int k = 0; k < kPack; ++k) mask[k] = decision(words, k) >= dropout.threshold ? dropout.scale : 0.0f;
}

// ---- GELU -----------------------------------------------------------------------------------------------------------

// The normal distribution's cumulative function Phi and density phi.
struct Normal {
  float cumulative, density;
};

// erf by Abramowitz and Stegun 7.1.26, whose error is at most 1.5e-7: it shares e**(-x*x/2) with the density, and takes
// half the instructions of erff, which would keep this from running at the speed of memory.
KOGPT2_HOST_DEVICE Normal normal(float x) {
  const float gauss = exponential(-0.5f * x * x);
  const float t = divide(1.0f, 1.0f + 0.3275911f * 0.70710678f * std::fabs(x));
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float tail = 0.5f * p * t * gauss;
  return {x < 0.0f ? tail : 1.0f - tail, 0.39894228f * gauss};
}

KOGPT2_HOST_DEVICE float gelu(float x) { return x * normal(x).cumulative; }

KOGPT2_HOST_DEVICE float gelu_derivative(float x) {
  const Normal at = normal(x);
  return at.cumulative + x * at.density;
}

// ---- LayerNorm ------------------------------------------------------------------------------------------------------

// The gradient of an element whose normalised value is `normal`. d is gradient times gamma; the means are the row's.
KOGPT2_HOST_DEVICE float layer_norm_gradient(float d, float normal, float inverse_std, float mean_d,
                                             float mean_d_normal) {
  return inverse_std * (d - mean_d - normal * mean_d_normal);
}

// ---- softmax --------------------------------------------------------------------------------------------------------

// The sum of the exponentials of the values added so far is exp(maximum) * sum. At first maximum is -infinity, sum 0.
struct LogSum {
  float maximum = -INFINITY, sum = 0.0f;

  KOGPT2_HOST_DEVICE void raise(float to) {
    if (to > maximum) {
      sum *= exponential(maximum - to);
      maximum = to;
    }
  }

  // A value of -infinity adds nothing, even if it is the first one.
  KOGPT2_HOST_DEVICE void add(const float values[kPack]) {
    float highest = values[0];
    for (int k = 1; k < kPack; ++k) highest = fmaxf(highest, values[k]);
    raise(highest);
    for (int k = 0; k < kPack; ++k) sum += values[k] == -INFINITY ? 0.0f : exponential(values[k] - maximum);
  }

  KOGPT2_HOST_DEVICE void merge(const LogSum& other) {
    raise(other.maximum);
    sum += other.maximum == maximum ? other.sum : other.sum * exponential(other.maximum - maximum);
  }

  KOGPT2_HOST_DEVICE float log() const { return maximum + std::log(sum); }
};

KOGPT2_HOST_DEVICE float softmax_gradient(float p, float d, float row_sum, float scale) {
  return scale * p * (d - row_sum);
}

KOGPT2_HOST_DEVICE float cross_entropy_gradient(float logit, float log_sum, bool is_label, float loss_gradient) {
  return loss_gradient * (exponential(logit - log_sum) - (is_label ? 1.0f : 0.0f));
}

// ---- optimizers -----------------------------------------------------------------------------------------------------

// All rules of common/update_rules.h in one form. `correction` and `epsilon` contain the bias correction:
//   u = correction * m / (sqrt(v) + epsilon) + decay * w;  w -= rate * u
// where `decay` is 0 for adam, which adds it to the gradient.
struct UpdateConstants {
  float gradient_scale;
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float correction, epsilon, rate;
  bool decay_in_gradient;
};

KOGPT2_HOST_DEVICE void update_moments(const UpdateConstants& constants, float gradient, float weight, float decay,
                                       float& m, float& v) {
  float g = gradient * constants.gradient_scale;
  if (constants.decay_in_gradient) g += decay * weight;
  m = constants.beta1 * m + constants.one_minus_beta1 * g;
  v = constants.beta2 * v + constants.one_minus_beta2 * g * g;
}

KOGPT2_HOST_DEVICE float update_direction(const UpdateConstants& constants, float m, float v, float weight,
                                          float decay) {
  const float direction = constants.correction * m / (std::sqrt(v) + constants.epsilon);
  return constants.decay_in_gradient ? direction : direction + decay * weight;
}

// LAMB's rate of a tensor, from the squares of the norms of its weights and of their directions.
KOGPT2_HOST_DEVICE float trust_ratio(double weights, double directions) {
  return weights == 0.0 || directions == 0.0 ? 1.0f : static_cast<float>(std::sqrt(weights / directions));
}

}  // namespace kogpt2
