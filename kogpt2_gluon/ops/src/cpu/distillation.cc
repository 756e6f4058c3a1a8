// kogpt2_distillation(hidden, weight, labels, states, matrix; temperature, precision, req) -> cross_entropy, divergence
//
//   z = hidden weight^T, the student's logits    y = states matrix^T, the teacher's
//   q = softmax(z / T), p = softmax(y / T), with the temperature T
//   cross_entropy[m] = log(sum_v exp(z[m, v])) - z[m, labels[m]]
//   divergence[m] = KL(p || q) = sum_v p[m, v] (y[m, v] - z[m, v]) / T - log_sum_exp(y[m] / T) + log_sum_exp(z[m] / T)
//
// hidden (..., C), weight (V, C), labels (...) ids as int32 or float32, states (..., D), matrix (V, D); both outputs are
// (...). M below is the product of hidden's leading axes. The teacher's states and matrix get no gradient.
// Backward, with g and h the gradients of cross_entropy and divergence:
//   d z[m, v] = g[m] (softmax(z)[m, v] - (v == labels[m])) + h[m] / T (q[m, v] - p[m, v])
//   d hidden = d z weight    d weight = d z^T hidden
// Saved: both logits, in strips of the vocabulary. Neither p nor q nor d z ever exists as a whole.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "matmul.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

// kStrip columns of the logits are made at a time, each strip (M, width) without gaps, and kPart columns of d z.
constexpr int64_t kStrip = 3072, kPart = 1536;

// Logits (M, V) in strips.
class Strips {
 public:
  Strips(int64_t M, int64_t V) : M_(M), V_(V), memory_(M * V) {}

  int64_t width(int64_t begin) const { return std::min(kStrip, V_ - begin); }
  float* strip(int64_t begin) { return memory_.data() + M_ * begin; }

  // Row m from column v to the end of the strip that contains v.
  const float* row(int64_t m, int64_t v) {
    const int64_t begin = v / kStrip * kStrip;
    return strip(begin) + m * width(begin) + (v - begin);
  }

 private:
  int64_t M_, V_;
  Buffer<float> memory_;
};

// Sums over a row that grow strip by strip, each relative to the greatest logit so far.
struct RowSums {
  float greatest = -std::numeric_limits<float>::infinity();          // of z
  float teachers_greatest = -std::numeric_limits<float>::infinity();  // of y
  double sum = 0, warm_sum = 0;     // exp(z - greatest), exp((z - greatest) / T)
  double teachers_sum = 0, dot = 0;  // exp((y - greatest) / T), and that times (y - z) / T

  void add(const float* z, const float* y, int64_t count, float inverse) {
    float peak = greatest, teachers_peak = teachers_greatest;
#pragma omp simd reduction(max : peak, teachers_peak)
    for (int64_t i = 0; i < count; ++i) {
      peak = z[i] > peak ? z[i] : peak;
      teachers_peak = y[i] > teachers_peak ? y[i] : teachers_peak;
    }
    float strip = 0, warm = 0, teachers = 0, product = 0;
#pragma omp simd reduction(+ : strip, warm, teachers, product)
    for (int64_t i = 0; i < count; ++i) {
      strip += exp_fast(z[i] - peak);
      warm += exp_fast((z[i] - peak) * inverse);
      const float share = exp_fast((y[i] - teachers_peak) * inverse);
      teachers += share;
      product += share * ((y[i] - z[i]) * inverse);
    }
    const double rescaled = std::exp(static_cast<double>(teachers_greatest - teachers_peak) * inverse);
    sum = sum * std::exp(static_cast<double>(greatest - peak)) + strip;
    warm_sum = warm_sum * std::exp(static_cast<double>(greatest - peak) * inverse) + warm;
    teachers_sum = teachers_sum * rescaled + teachers;
    dot = dot * rescaled + product;
    greatest = peak;
    teachers_greatest = teachers_peak;
  }
};

struct Distillation {
  enum Input { kHidden, kWeight, kLabels, kStates, kMatrix };
  enum Output { kCrossEntropy, kDivergence };
  Precision precision;
  float inverse;  // 1 / T

  struct Saved {
    std::optional<Strips> ours, theirs;
    std::vector<RowSums> rows;
  };

  explicit Distillation(const Attributes& attributes) : precision(precision_of(attributes)) {
    const double temperature = attributes.number("temperature");
    if (!(temperature > 0)) fail("temperature=", temperature, " is not above 0");
    inverse = static_cast<float>(1 / temperature);
  }

  Arrays inputs() const {
    return {{"hidden", 'f'}, {"weight", 'f'}, {"labels", 'n'}, {"states", 'f'}, {"matrix", 'f'}};
  }
  Arrays outputs() const { return {{"cross_entropy", 'f'}, {"divergence", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape hidden = shapes.input(kHidden);
    if (hidden.size() < 2) shapes.refuse(kHidden, "at least 2 axes");
    const Shape rows = without_last(hidden);
    const unsigned vocabulary = shapes.input(kWeight, 2)[0], width = shapes.input(kMatrix, 2)[1];
    shapes.settle(kWeight, {vocabulary, hidden.back()});
    shapes.settle(kLabels, rows);
    shapes.settle(kStates, with_last(hidden, width));
    shapes.settle(kMatrix, {vocabulary, width});
    shapes.output(kCrossEntropy) = shapes.output(kDivergence) = rows;
  }

  void forward(const ForwardCall& call, Saved& saved) const {
    MXTensor &hidden_array = call.input(kHidden), &weight_array = call.input(kWeight);
    const int64_t M = num_rows(hidden_array), C = hidden_array.shape.back(), V = weight_array.shape[0];
    const int64_t D = call.input(kStates).shape.back();
    const Ids labels(call.input(kLabels));
    for (int64_t m = 0; m < M; ++m) labels.at(m, V);  // refuses those outside
    saved.ours.reset();  // before new ones are asked for: they may get the same memory
    saved.theirs.reset();
    Strips &ours = saved.ours.emplace(M, V), &theirs = saved.theirs.emplace(M, V);
    saved.rows.assign(M, RowSums());
    const Factor hidden(precision, floats(hidden_array), M, C), states(precision, floats(call.input(kStates)), M, D);
    for (int64_t begin = 0; begin < V; begin += kStrip) {
      const int64_t width = ours.width(begin);
      const Factor weight(precision, floats(weight_array) + begin * C, width, C);
      matmul(hidden.matrix(), weight.transposed(), ours.strip(begin));
      const Factor matrix(precision, floats(call.input(kMatrix)) + begin * D, width, D);
      matmul(states.matrix(), matrix.transposed(), theirs.strip(begin));
#pragma omp parallel for schedule(static)
      for (int64_t m = 0; m < M; ++m) saved.rows[m].add(ours.row(m, begin), theirs.row(m, begin), width, inverse);
    }
    float* const cross_entropy = floats(call.output(kCrossEntropy));
    float* const divergence = floats(call.output(kDivergence));
    for (int64_t m = 0; m < M; ++m) {
      const RowSums& row = saved.rows[m];
      const float picked = *ours.row(m, labels.at(m, V));
      cross_entropy[m] = static_cast<float>(static_cast<double>(row.greatest - picked) + std::log(row.sum));
      const double shift = static_cast<double>(row.greatest - row.teachers_greatest) * inverse;
      divergence[m] = static_cast<float>(row.dot / row.teachers_sum + shift + std::log(row.warm_sum / row.teachers_sum));
    }
  }

  void backward(const BackwardCall& call, Saved& saved) const {
    if (!saved.ours) fail("a backward pass without a forward pass");
    MXTensor &hidden_array = call.input(kHidden), &weight_array = call.input(kWeight);
    const int64_t M = num_rows(hidden_array), C = hidden_array.shape.back(), V = weight_array.shape[0];
    const float* const weight = floats(weight_array);
    float* const hidden_gradient = floats(call.gradient(kHidden));
    float* const weight_gradient = floats(call.gradient(kWeight));
    const Factor hidden(precision, floats(hidden_array), M, C);
    static_assert(kStrip % kPart == 0, "a part of the gradient lies within a strip of the logits");
    for (int64_t begin = 0; begin < V; begin += kPart) {
      const int64_t width = std::min(kPart, V - begin);
      Factor part(precision, M, width);
      logit_gradient(call, saved, begin, width, part);
      if (call.wants(kHidden)) {
        const Factor weight_part(precision, weight + begin * C, width, C);
        matmul(part.matrix(), weight_part.matrix(), hidden_gradient, 0, begin > 0 || call.adds(kHidden));
      }
      if (call.wants(kWeight)) {
        matmul(part.transposed(), hidden.matrix(), weight_gradient + begin * C, 0, call.adds(kWeight));
      }
    }
    for (const size_t input : {kLabels, kStates, kMatrix}) write_zeros(call, input);
  }

 private:
  // d z of all rows, for columns begin .. begin + width - 1, which are in one strip.
  void logit_gradient(const BackwardCall& call, Saved& saved, int64_t begin, int64_t width, Factor& part) const {
    const int64_t M = part.matrix().rows, V = call.input(kWeight).shape[0];
    const Ids labels(call.input(kLabels));
    const float* const loss_gradient = floats(call.output_gradient(kCrossEntropy));
    const float* const divergence_gradient = floats(call.output_gradient(kDivergence));
    Buffer<float> memory(width * omp_get_max_threads());
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; ++m) {
      float* const out = memory.data() + omp_get_thread_num() * width;
      const float *const z = saved.ours->row(m, begin), *const y = saved.theirs->row(m, begin);
      const RowSums& row = saved.rows[m];
      const float scale = static_cast<float>(loss_gradient[m] / row.sum);
      const float warm = static_cast<float>(divergence_gradient[m] * inverse / row.warm_sum);
      const float teachers = static_cast<float>(divergence_gradient[m] * inverse / row.teachers_sum);
      const float peak = row.greatest, teachers_peak = row.teachers_greatest;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        out[i] = scale * exp_fast(z[i] - peak) + (warm * exp_fast((z[i] - peak) * inverse) -
                                                  teachers * exp_fast((y[i] - teachers_peak) * inverse));
      }
      const int64_t label = labels.at(m, V);
      if (label >= begin && label < begin + width) out[label - begin] -= loss_gradient[m];
      part.store_row(m, out);
    }
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_distillation, Distillation);

}  // namespace kogpt2
