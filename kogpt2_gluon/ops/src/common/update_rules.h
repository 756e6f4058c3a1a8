// The update rules, named once for the CPU (adam_update.cc) and for CUDA (fused_update.cu).
//
// For each element, let g be its scaled gradient, w its weight, d the weight decay of its array, a the learning rate,
// e epsilon and t the step, counted from 1. All rules keep two moments:
//   m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
// With m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t), the moments with their bias corrected, the weight changes by:
//   adamw     w -= a (m' / (sqrt(v') + e) + d w)   decoupled decay (Loshchilov & Hutter, 2019): training/optimizers.py
//   bertadam  w -= a (m / (sqrt(v) + e) + d w)     GluonNLP's BERTAdam, without bias correction
//   adam      w -= a c m / (sqrt(v) + e)           MXNet's Adam, where c = sqrt(1 - beta2^t) / (1 - beta1^t); d w is
//                                                  added to g before m and v (L2)
//   lamb      w -= a r u                           where u = m' / (sqrt(v') + e) + d w, and r = |w| / |u| of the whole
//                                                  array, or 1 where either is 0 (You et al., 2020; MXNet's LAMB
//                                                  without bounds)
#pragma once
#include <cmath>
#include <cstdint>
#include <string>

namespace kogpt2 {

enum class Rule : int32_t { kAdamW = 0, kBertAdam = 1, kAdam = 2, kLamb = 3 };

struct RuleProperties {
  const char* name;
  bool corrects_bias;      // uses m' and v', or c for adam
  bool decay_in_gradient;  // adds d w to g, and not to the direction
  bool has_trust_ratio;    // scales the step of each array by r, so that all of u must be known first
};

constexpr int kNumRules = 4;
constexpr const char* kRuleNames = "adamw, bertadam, adam or lamb";
constexpr RuleProperties kRules[kNumRules] = {  // by the numbers of Rule
    {"adamw", true, false, false},
    {"bertadam", false, false, false},
    {"adam", true, true, false},
    {"lamb", true, false, true},
};

inline bool is_rule(int number) { return number >= 0 && number < kNumRules; }

inline const RuleProperties& properties(Rule rule) { return kRules[static_cast<int>(rule)]; }

// The number of the rule with this name, or -1.
inline int find_rule(const std::string& name) {
  for (int number = 0; number < kNumRules; ++number) {
    if (name == kRules[number].name) return number;
  }
  return -1;
}

// The bias correction of a step: m' = m / mean, and sqrt(v') = sqrt(v) / root. In float64, because 1 - beta2^t is small
// at first.
struct BiasCorrection {
  double mean = 1.0, root = 1.0;

  BiasCorrection(Rule rule, double beta1, double beta2, int64_t step) {
    if (!properties(rule).corrects_bias) return;
    mean = 1.0 - std::pow(beta1, step);
    root = std::sqrt(1.0 - std::pow(beta2, step));
  }

  // m' / (sqrt(v') + e) = (root / mean) m / (sqrt(v) + root e); adam's e is not corrected.
  double epsilon(Rule rule, double epsilon) const {
    return properties(rule).decay_in_gradient ? epsilon : root * epsilon;
  }
};

}  // namespace kogpt2
