// kogpt2_cross_entropy(hidden, weight, labels, logits_memory; has_memory=0, precision, req) -> loss
//
//   logits = hidden weight^T
//   log_sum_exp[m] = log(sum_v exp(logits[m, v]))
//   loss[m] = log_sum_exp[m] - logits[m, labels[m]]
//
// hidden (..., C), weight (V, C), labels (...) ids as int32 or float32, loss (...). M below is the product of
// hidden's leading axes. There is one loss for each row; the caller masks them and takes their mean.
// Backward, with g = d loss:
//   d logits[m, v] = g[m] (exp(logits[m, v] - log_sum_exp[m]) - (v == labels[m]))
//   d hidden = d logits weight    d weight = d logits^T hidden
// Saved: the logits, in strips of the vocabulary. d logits never exists as a whole: it is made for a part of a strip,
// goes into both products, and is discarded.
//
// With has_memory=1, logits are kept in logits_memory, as far as they fit. It may be the array that d weight is written
// to, which nobody needs between the two passes: each part of the logits has been read before d weight reaches its
// place. Then there is one backward pass for each forward pass. Smaller than the weight, it is not used.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "matmul.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

// kStrip columns of the logits are made at a time, and kPart columns of their gradient; a strip is several parts.
constexpr int64_t kStrip = 3072, kPart = 1536;

// Logits (M, V). Each strip of kStrip columns is an array of its own, (M, width) without gaps: oneDNN is a third slower
// if it has to write rows with gaps between them.
//
// The strips before column `inside_` lie at the end of `memory` (V, C), the others in memory of their own. The backward
// pass may write d weight (V, C) to the same memory, from its beginning, a part of a strip at a time: as many strips are
// inside as are always read before they are overwritten.
class Logits {
 public:
  Logits(int64_t M, int64_t V, int64_t C, float* memory)
      : M_(M),
        V_(V),
        inside_(memory ? columns_inside(M, V, C) : 0),
        end_(memory ? memory + V * C : nullptr),
        own_(M * (V - inside_)) {}

  bool in_memory() const { return inside_ > 0; }
  int64_t width(int64_t begin) const { return std::min(kStrip, V_ - begin); }
  float* strip(int64_t begin) {
    return begin < inside_ ? end_ - M_ * (inside_ - begin) : own_.data() + M_ * (begin - inside_);
  }

  // Row m from column v to the end of the strip that contains v.
  float* row(int64_t m, int64_t v) {
    const int64_t begin = v / kStrip * kStrip;
    return strip(begin) + m * width(begin) + (v - begin);
  }

 private:
  static int64_t columns_inside(int64_t M, int64_t V, int64_t C) {
    int64_t inside = V;
    while (inside > 0 && !are_read_in_time(M, V, C, inside)) inside = (inside - 1) / kStrip * kStrip;
    return inside;
  }

  // True if d weight never reaches a strip with a part that has not been read yet. A part's columns are spread over all
  // of its strip, so a strip is needed until its last part has been read.
  static bool are_read_in_time(int64_t M, int64_t V, int64_t C, int64_t inside) {
    for (int64_t written = kPart; written < inside; written += kPart) {
      const int64_t needed = written / kStrip * kStrip;  // the strip of the next part
      if (written * C > V * C - M * (inside - needed)) return false;
    }
    return M * inside <= V * C;
  }

  int64_t M_, V_, inside_;
  float* end_;
  Buffer<float> own_;
};

// Reads all labels, and refuses those outside of 0 .. V - 1.
void read_labels(const MXTensor& tensor, int64_t V, Buffer<int64_t>& labels) {
  const Ids ids(tensor);
  for (int64_t m = 0; m < tensor.size(); ++m) labels.data()[m] = ids.at(m, V);
}

// The logarithm of a growing sum of exponentials: greatest + log(sum).
struct LogSumExp {
  float greatest = -std::numeric_limits<float>::infinity(), sum = 0.0f;

  void add(const float* logits, int64_t count) {
    float peak = greatest;
#pragma omp simd reduction(max : peak)
    for (int64_t i = 0; i < count; ++i) peak = logits[i] > peak ? logits[i] : peak;
    float strip_sum = 0.0f;
#pragma omp simd reduction(+ : strip_sum)
    for (int64_t i = 0; i < count; ++i) strip_sum += exp_fast(logits[i] - peak);
    sum = sum * std::exp(greatest - peak) + strip_sum;
    greatest = peak;
  }
};

// d logits of all rows, for columns begin .. begin + width - 1, which are in one strip.
struct LogitGradient {
  Logits& logits;
  const float *picked, *loss, *loss_gradient;
  const int64_t* labels;

  void compute(int64_t begin, Factor& part) const {
    const int64_t M = part.matrix().rows, width = part.matrix().columns;
    Buffer<float> rows(width * omp_get_max_threads());
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; ++m) {
      float* const row = rows.data() + omp_get_thread_num() * width;
      const float* const from = logits.row(m, begin);
      // log_sum_exp is loss + the label's logit. Subtracting these one by one is more accurate: the loss is the smaller
      // number, and so has more digits after the point.
      const float scale = loss_gradient[m], label_logit = picked[m], lost = loss[m];
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) row[i] = scale * exp_fast((from[i] - label_logit) - lost);
      if (labels[m] >= begin && labels[m] < begin + width) row[labels[m] - begin] -= scale;
      part.store_row(m, row);
    }
  }
};

struct CrossEntropy {
  enum Input { kHidden, kWeight, kLabels, kMemory };
  enum Output { kLoss };
  Precision precision;
  bool has_memory;

  struct Saved {
    std::optional<Logits> logits;
    std::vector<float> picked;  // the logit of each label
  };

  explicit CrossEntropy(const Attributes& attributes)
      : precision(precision_of(attributes)), has_memory(attributes.integer("has_memory", 0, 0) != 0) {}

  Arrays inputs() const {
    Arrays declared = {{"hidden", 'f'}, {"weight", 'f'}, {"labels", 'n'}};
    if (has_memory) declared.push_back({"logits_memory", 'f'});
    return declared;
  }
  Arrays outputs() const { return {{"loss", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape hidden = shapes.input(kHidden);
    if (hidden.size() < 2) shapes.refuse(kHidden, "at least 2 axes");
    const Shape rows = without_last(hidden);
    shapes.settle(kWeight, {shapes.input(kWeight, 2)[0], hidden.back()});
    shapes.settle(kLabels, rows);
    shapes.output(kLoss) = rows;
  }

  void forward(const ForwardCall& call, Saved& saved) const {
    MXTensor &hidden_array = call.input(kHidden), &weight_array = call.input(kWeight);
    const int64_t M = num_rows(hidden_array), C = hidden_array.shape.back(), V = weight_array.shape[0];
    Buffer<int64_t> labels(M);
    read_labels(call.input(kLabels), V, labels);
    const float* const weight = floats(weight_array);
    float* const loss = floats(call.output(kLoss));
    saved.logits.reset();  // before new ones are asked for: they may get the same memory
    const bool enough = has_memory && call.input(kMemory).size() == V * C;
    Logits& logits = saved.logits.emplace(M, V, C, enough ? floats(call.input(kMemory)) : nullptr);
    saved.picked.resize(M);
    const Factor hidden(precision, floats(hidden_array), M, C);
    std::vector<LogSumExp> totals(M);
    for (int64_t begin = 0; begin < V; begin += kStrip) {
      const int64_t width = logits.width(begin);
      const Factor strip(precision, weight + begin * C, width, C);
      matmul(hidden.matrix(), strip.transposed(), logits.strip(begin));
#pragma omp parallel for schedule(static)
      for (int64_t m = 0; m < M; ++m) totals[m].add(logits.row(m, begin), width);
    }
    for (int64_t m = 0; m < M; ++m) {
      const float logarithm = std::log(totals[m].sum);
      saved.picked[m] = *logits.row(m, labels.data()[m]);
      loss[m] = (totals[m].greatest - saved.picked[m]) + logarithm;
    }
  }

  void backward(const BackwardCall& call, Saved& saved) const {
    if (!saved.logits) fail("a backward pass without a forward pass");
    MXTensor &hidden_array = call.input(kHidden), &weight_array = call.input(kWeight);
    const int64_t M = num_rows(hidden_array), C = hidden_array.shape.back(), V = weight_array.shape[0];
    Buffer<int64_t> labels(M);
    read_labels(call.input(kLabels), V, labels);
    const float* const weight = floats(weight_array);
    float* const hidden_gradient = floats(call.gradient(kHidden));
    float* const weight_gradient = floats(call.gradient(kWeight));
    const Factor hidden(precision, floats(hidden_array), M, C);
    const LogitGradient logit_gradient = {*saved.logits, saved.picked.data(), floats(call.output(kLoss)),
                                          floats(call.output_gradient(kLoss)), labels.data()};
    static_assert(kStrip % kPart == 0, "a part of the gradient lies within a strip of the logits");
    for (int64_t begin = 0; begin < V; begin += kPart) {
      const int64_t width = std::min(kPart, V - begin);
      Factor part(precision, M, width);
      logit_gradient.compute(begin, part);
      if (call.wants(kHidden)) {
        const Factor weight_part(precision, weight + begin * C, width, C);
        matmul(part.matrix(), weight_part.matrix(), hidden_gradient, 0, begin > 0 || call.adds(kHidden));
      }
      if (call.wants(kWeight)) {
        matmul(part.transposed(), hidden.matrix(), weight_gradient + begin * C, 0, call.adds(kWeight));
      }
    }
    write_zeros(call, kLabels);
    if (saved.logits->in_memory()) saved.logits.reset();  // d weight may have been written over them
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_cross_entropy, CrossEntropy);

}  // namespace kogpt2

// Columns of the vocabulary that are in one product of the forward pass, and of the backward pass.
extern "C" int64_t kogpt2_logits_columns(int backward) { return backward ? kogpt2::kPart : kogpt2::kStrip; }
