// kogpt2_adam_update(weight, gradient, m, v, weight, gradient, m, v, ...; num_arrays, rule, learning_rate, beta1,
//                    beta2, epsilon, weight_decays, step, scale=1) -> out
//
// One step of all parameters by one of the rules in common/update_rules.h: weight, m and v are changed in place,
// gradient is only read. Each of the num_arrays parameters has four arrays of one shape, and one number in
// weight_decays, which are separated by commas. g = scale * gradient, where scale is the inverse of the loss scale and
// the factor of clipping in one. step counts from 1.
// out (1,) is the step; the caller can wait for it. There is no backward pass. Values that are not finite stay so:
// check the gradients before.
//
// The time is that of memory: 28 bytes a parameter in one pass. LAMB must know its norms first: 40 bytes in two passes.
#include <algorithm>
#include <cmath>

#include "../common/rule_attribute.h"
#include "cpu_operator.h"
#include "pieces.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

// The inputs of each parameter; m and v are estimates of the gradient's mean and variance.
enum Input { kWeight, kGradient, kMean, kVariance, kInputsPerArray };

double beta_of(const Attributes& attributes, const char* name, double otherwise) {
  const double beta = attributes.number(name, otherwise);
  if (!(beta >= 0.0 && beta < 1.0)) fail(name, "=", beta, ": at least 0 and below 1");
  return beta;
}

// All rules in one form. m and v are updated with g = scale * gradient + l2 * weight, and then
//   u = rate m / (sqrt(v) + epsilon) + decay * weight,  weight -= u  (for LAMB: weight -= a r u)
struct Step {
  float scale, l2, beta1, complement1, beta2, complement2, rate, epsilon, decay;

  float direction(float weight, float mean, float variance) const {
    return rate * mean / (std::sqrt(variance) + epsilon) + decay * weight;
  }
};

// The four arrays of one piece.
struct Parameter {
  float* weight;
  const float* gradient;
  float *mean, *variance;
  int64_t count;
};

Parameter parameter_of(Tensors& in, const Piece& piece) {
  const auto array = [&](Input which) { return floats(in[piece.array * kInputsPerArray + which]) + piece.begin; };
  return {array(kWeight), array(kGradient), array(kMean), array(kVariance), piece.count};
}

void update(const Step step, const Parameter at) {
#pragma omp simd
  for (int64_t i = 0; i < at.count; ++i) {
    const float gradient = step.scale * at.gradient[i] + step.l2 * at.weight[i];
    at.mean[i] = step.beta1 * at.mean[i] + step.complement1 * gradient;
    at.variance[i] = step.beta2 * at.variance[i] + step.complement2 * gradient * gradient;
    at.weight[i] -= step.direction(at.weight[i], at.mean[i], at.variance[i]);
  }
}

// The sums of the squares of a LAMB array's weight and of its u.
struct Squares {
  double weight, direction;
};

Squares update_moments(const Step step, const Parameter at) {
  double weight_squares = 0.0, direction_squares = 0.0;
#pragma omp simd reduction(+ : weight_squares, direction_squares)
  for (int64_t i = 0; i < at.count; ++i) {
    const float gradient = step.scale * at.gradient[i];
    at.mean[i] = step.beta1 * at.mean[i] + step.complement1 * gradient;
    at.variance[i] = step.beta2 * at.variance[i] + step.complement2 * gradient * gradient;
    const double weight = at.weight[i], direction = step.direction(at.weight[i], at.mean[i], at.variance[i]);
    weight_squares += weight * weight;
    direction_squares += direction * direction;
  }
  return {weight_squares, direction_squares};
}

void move(const Step step, float rate, const Parameter at) {
#pragma omp simd
  for (int64_t i = 0; i < at.count; ++i) {
    at.weight[i] -= rate * step.direction(at.weight[i], at.mean[i], at.variance[i]);
  }
}

void update_lamb(const std::vector<Step>& steps, const std::vector<Piece>& pieces, double learning_rate, Tensors& in) {
  const int64_t count = static_cast<int64_t>(pieces.size());
  std::vector<Squares> squares(count);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    squares[i] = update_moments(steps[pieces[i].array], parameter_of(in, pieces[i]));
  }
  std::vector<Squares> totals(steps.size(), Squares{0.0, 0.0});  // added piece after piece, by one thread
  for (int64_t i = 0; i < count; ++i) {
    totals[pieces[i].array].weight += squares[i].weight;
    totals[pieces[i].array].direction += squares[i].direction;
  }
  std::vector<float> rates;
  for (const Squares& total : totals) {
    const bool none = total.weight == 0.0 || total.direction == 0.0;
    rates.push_back(static_cast<float>(learning_rate * (none ? 1.0 : std::sqrt(total.weight / total.direction))));
  }
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    move(steps[pieces[i].array], rates[pieces[i].array], parameter_of(in, pieces[i]));
  }
}

struct AdamUpdate {
  enum Output { kOut };
  int64_t num_arrays, step;
  Rule rule;
  double learning_rate, beta1, beta2, epsilon, scale;
  std::vector<double> weight_decays;

  explicit AdamUpdate(const Attributes& attributes)
      : num_arrays(attributes.integer("num_arrays", 1)),
        step(attributes.integer("step", 1, 1)),
        rule(rule_of(attributes, "rule", "adamw")),
        learning_rate(attributes.number("learning_rate", 0.001)),
        beta1(beta_of(attributes, "beta1", 0.9)),
        beta2(beta_of(attributes, "beta2", 0.999)),
        epsilon(attributes.number("epsilon", 1e-8)),
        scale(attributes.number("scale", 1.0)),
        weight_decays(attributes.numbers("weight_decays", static_cast<size_t>(num_arrays))) {}

  Arrays inputs() const {
    Arrays declared;
    declared.reserve(static_cast<size_t>(num_arrays) * kInputsPerArray);
    for (int64_t i = 0; i < num_arrays; ++i) {
      for (const char* name : {"weight", "gradient", "m", "v"}) declared.push_back({name, 'f', i});
    }
    return declared;
  }
  Arrays outputs() const { return {{"out", 'f'}}; }

  std::vector<int> written_inputs() const {
    std::vector<int> written;
    for (int i = 0; i < num_arrays * kInputsPerArray; ++i) {
      if (i % kInputsPerArray != kGradient) written.push_back(i);
    }
    return written;
  }

  void shape(ShapeInference& shapes) const {
    for (size_t weight = 0; weight < shapes.num_inputs(); weight += kInputsPerArray) {
      const Shape& wanted = shapes.input(weight);
      for (const Input each : {kGradient, kMean, kVariance}) shapes.settle(weight + each, wanted);
    }
    shapes.output(kOut) = {1};
  }

  void forward(const ForwardCall& call) const {
    const std::vector<Step> steps = steps_of_arrays();
    const std::vector<Piece> pieces = pieces_of(call.inputs(), kInputsPerArray);
    if (properties(rule).has_trust_ratio) {
      update_lamb(steps, pieces, learning_rate, call.inputs());
    } else {
#pragma omp parallel for schedule(static)
      for (size_t i = 0; i < pieces.size(); ++i) update(steps[pieces[i].array], parameter_of(call.inputs(), pieces[i]));
    }
    floats(call.output(kOut))[0] = static_cast<float>(step);
  }

  // The step of every array, without LAMB's factor a r.
  std::vector<Step> steps_of_arrays() const {
    const RuleProperties& of_rule = properties(rule);
    const double rate = of_rule.has_trust_ratio ? 1.0 : learning_rate;
    const BiasCorrection correction(rule, beta1, beta2, step);
    std::vector<Step> steps;
    for (const double weight_decay : weight_decays) {
      Step each;
      each.scale = static_cast<float>(scale);
      each.l2 = static_cast<float>(of_rule.decay_in_gradient ? weight_decay : 0.0);
      each.beta1 = static_cast<float>(beta1), each.complement1 = static_cast<float>(1.0 - beta1);
      each.beta2 = static_cast<float>(beta2), each.complement2 = static_cast<float>(1.0 - beta2);
      each.rate = static_cast<float>(rate * correction.root / correction.mean);
      each.epsilon = static_cast<float>(correction.epsilon(rule, epsilon));
      each.decay = static_cast<float>(of_rule.decay_in_gradient ? 0.0 : rate * weight_decay);
      steps.push_back(each);
    }
    return steps;
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_adam_update, AdamUpdate);

}  // namespace kogpt2
