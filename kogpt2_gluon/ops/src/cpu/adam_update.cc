// kogpt2_adam_update(weight, gradient, m, v, weight, gradient, m, v, ...; num_arrays, rule, learning_rate, beta1,
//                    beta2, epsilon, weight_decays, step, scale=1) -> out
//
// One step of all parameters: weight, m and v are changed in place, gradient is only read. Four arrays of one shape for
// each of num_arrays parameters, and a weight decay d for each, comma separated. With g = scale * gradient (the loss
// scale's inverse and clipping in one), t = step counted from 1, a = learning_rate, e = epsilon:
//   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,  m' = m / (1 - beta1^t),  v' = v / (1 - beta2^t)
//   adamw     weight -= a (m' / (sqrt(v') + e) + d weight)    decoupled decay (Loshchilov and Hutter, 2019)
//   bertadam  weight -= a (m / (sqrt(v) + e) + d weight)      GluonNLP's BERTAdam: no bias correction
//   adam      weight -= a c m / (sqrt(v) + e)                 MXNet's Adam: g has d weight added to it (L2) before m
//                                                             and v, c = sqrt(1 - beta2^t) / (1 - beta1^t)
//   lamb      weight -= a r u,  u = m' / (sqrt(v') + e) + d weight,  r = |weight| / |u| of the array, 1 where either is
//             0 (You et al., 2020; MXNet's LAMB without bounds)
// out (1,) is the step, something to wait for. There is no backward pass. What is not finite stays so: look first.
//
// Memory bandwidth is all: 28 bytes a parameter in one pass. LAMB has to know its norms first: 40 bytes in two.
#include <algorithm>
#include <cmath>

#include "operator.h"
#include "pieces.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

enum Input { kWeight, kGradient, kMean, kVariance, kInputsPerArray };  // m and v are estimates of these two moments
enum class Rule { kAdamW, kBertAdam, kAdam, kLamb };

Rule rule_of(const Attributes& attributes) {
  const std::string name = attributes.text("rule", "adamw");
  if (name == "adamw") return Rule::kAdamW;
  if (name == "bertadam") return Rule::kBertAdam;
  if (name == "adam") return Rule::kAdam;
  if (name == "lamb") return Rule::kLamb;
  fail("rule='", name, "': adamw, bertadam, adam or lamb");
}

double beta_of(const Attributes& attributes, const char* name, double otherwise) {
  const double beta = attributes.number(name, otherwise);
  if (!(beta >= 0.0 && beta < 1.0)) fail(name, "=", beta, ": at least 0 and below 1");
  return beta;
}

// The formulas above in one form. m and v with g = scale * gradient + l2 * weight; then
//   u = rate m / (sqrt(v) + epsilon) + decay * weight,  weight -= u  (LAMB: weight -= a r u)
struct Step {
  float scale, l2, beta1, complement1, beta2, complement2, rate, epsilon, decay;

  float direction(float weight, float mean, float variance) const {
    return rate * mean / (std::sqrt(variance) + epsilon) + decay * weight;
  }
};

// The step of every array, but for LAMB's factor a r.
std::vector<Step> steps_of(const Attributes& attributes, Rule rule, int64_t count) {
  const double beta1 = beta_of(attributes, "beta1", 0.9), beta2 = beta_of(attributes, "beta2", 0.999);
  const double epsilon = attributes.number("epsilon", 1e-8);
  const int64_t t = attributes.integer("step", 1, 1);
  const double learning_rate = rule == Rule::kLamb ? 1.0 : attributes.number("learning_rate", 0.001);
  const double mean_correction = rule == Rule::kBertAdam ? 1.0 : 1.0 - std::pow(beta1, t);
  const double root = rule == Rule::kBertAdam ? 1.0 : std::sqrt(1.0 - std::pow(beta2, t));
  std::vector<Step> steps;
  for (const double weight_decay : attributes.numbers("weight_decays", static_cast<size_t>(count))) {
    Step step;
    step.scale = static_cast<float>(attributes.number("scale", 1.0));
    step.l2 = static_cast<float>(rule == Rule::kAdam ? weight_decay : 0.0);
    step.beta1 = static_cast<float>(beta1), step.complement1 = static_cast<float>(1.0 - beta1);
    step.beta2 = static_cast<float>(beta2), step.complement2 = static_cast<float>(1.0 - beta2);
    // m' / (sqrt(v') + e) = (root / mean_correction) m / (sqrt(v) + root e)
    step.rate = static_cast<float>(learning_rate * root / mean_correction);
    step.epsilon = static_cast<float>(rule == Rule::kAdam ? epsilon : root * epsilon);
    step.decay = static_cast<float>(rule == Rule::kAdam ? 0.0 : learning_rate * weight_decay);
    steps.push_back(step);
  }
  return steps;
}

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

// Squares of a LAMB array's weight and u.
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
  std::vector<Squares> totals(steps.size(), Squares{0.0, 0.0});  // piece after piece, whatever the threads
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

void shape(const Attributes& attributes, Shapes& in, Shapes& out) {
  steps_of(attributes, rule_of(attributes), num_arrays(attributes));  // refuses what is wrong before anything runs
  const char* const names[] = {"weight", "gradient", "m", "v"};
  for (size_t i = 0; i < in.size(); ++i) {
    const size_t array = i / kInputsPerArray;
    const std::string name = std::string(names[i % kInputsPerArray]) + " of array " + std::to_string(array);
    expect_shape(name.c_str(), in[i], in[array * kInputsPerArray]);
  }
  out[0] = {1};
}

void forward(const Attributes& attributes, Tensors& in, Tensors& out) {
  const Rule rule = rule_of(attributes);
  const std::vector<Step> steps = steps_of(attributes, rule, num_arrays(attributes));
  const std::vector<Piece> pieces = pieces_of(in, kInputsPerArray);
  if (rule == Rule::kLamb) {
    update_lamb(steps, pieces, attributes.number("learning_rate", 0.001), in);
  } else {
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < pieces.size(); ++i) update(steps[pieces[i].array], parameter_of(in, pieces[i]));
  }
  floats(out[0])[0] = static_cast<float>(attributes.integer("step", 1, 1));
}

MXReturnValue count_inputs(const AttributeMap& map, int* num_inputs, int* num_outputs) {
  return guarded([&] {
    *num_inputs = static_cast<int>(num_arrays(Attributes(map))) * kInputsPerArray;
    *num_outputs = 1;
  });
}

MXReturnValue changed_inputs(const AttributeMap& map, std::vector<int>* indices) {
  return guarded([&] {
    for (int i = 0; i < num_arrays(Attributes(map)) * kInputsPerArray; ++i) {
      if (i % kInputsPerArray != kGradient) indices->push_back(i);
    }
  });
}

}  // namespace

REGISTER_OP(kogpt2_adam_update)
    .setParseAttrs(count_inputs)
    .setInferType(infer_type<0>)
    .setInferShape(infer_shape<shape>)
    .setMutateInputs(changed_inputs)
    .setForward(run<forward>, "cpu");

}  // namespace kogpt2
