// kogpt2_cross_entropy(hidden, weight, labels; precision, req) -> loss
//
//   logits = hidden weight^T
//   log_sum_exp[m] = log(sum_v exp(logits[m, v]))
//   loss[m] = log_sum_exp[m] - logits[m, labels[m]]
//
// hidden (..., C), weight (V, C), labels (...) ids as int32 or float32, loss (...). M below is the product of
// hidden's leading axes. Losses are per row: mask and mean are the caller's.
// Backward, of g = d loss:
//   d logits[m, v] = g[m] (exp(logits[m, v] - log_sum_exp[m]) - (v == labels[m]))
//   d hidden = d logits weight    d weight = d logits^T hidden
// Saved: logits, strip by strip of the vocabulary. d logits is never whole: it is made for a part of a strip, goes into
// both products, and is forgotten.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "matmul.h"
#include "saved.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

enum Input { kHidden, kWeight, kLabels, kNumInputs };

// Columns of the logits made at a time, and of their gradient, so many of which fill a strip.
constexpr int64_t kStrip = 3072, kPart = 1536;

// Logits (M, V), each strip of kStrip columns an array of its own, (M, width) without gaps: oneDNN is a third slower
// when it has to write rows that are apart.
class Logits {
 public:
  Logits(int64_t M, int64_t V) : M_(M), V_(V), values_(M * V) {}

  int64_t width(int64_t begin) const { return std::min(kStrip, V_ - begin); }
  float* strip(int64_t begin) { return values_.data() + M_ * begin; }

  // Row m from column v on, to the end of the strip that v is in.
  float* row(int64_t m, int64_t v) {
    const int64_t begin = v / kStrip * kStrip;
    return strip(begin) + m * width(begin) + (v - begin);
  }

 private:
  int64_t M_, V_;
  Buffer<float> values_;
};

struct Saved {
  std::optional<Logits> logits;
};

void shape(const Attributes&, Shapes& in, Shapes& out) {
  if (in[kHidden].size() < 2) fail("hidden has shape ", to_text(in[kHidden]), ", expected at least 2 axes");
  expect_axes("weight", in[kWeight], 2);
  expect_shape("weight", in[kWeight], {in[kWeight][0], in[kHidden].back()});
  const Shape rows(in[kHidden].begin(), in[kHidden].end() - 1);
  expect_shape("labels", in[kLabels], rows);
  out[0] = rows;
}

// All labels, refused unless within 0 .. V - 1.
void read_labels(const MXTensor& tensor, int64_t V, Buffer<int64_t>& labels) {
  const Ids ids(tensor);
  for (int64_t m = 0; m < tensor.size(); ++m) labels.data()[m] = ids.at(m, V);
}

// The logarithm of a sum of exponentials that grows: greatest + log(sum).
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

void forward(const Attributes& attributes, Tensors& in, Tensors& out, Saved& saved) {
  const Precision precision = precision_of(attributes);
  const int64_t M = num_rows(in[kHidden]), C = in[kHidden].shape.back(), V = in[kWeight].shape[0];
  Buffer<int64_t> labels(M);
  read_labels(in[kLabels], V, labels);
  const float* const weight = floats(in[kWeight]);
  saved.logits.reset();  // before another is asked for: it may be the same
  Logits& logits = saved.logits.emplace(M, V);
  const Factor hidden(precision, floats(in[kHidden]), M, C);
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
    floats(out[0])[m] = (totals[m].greatest - *logits.row(m, labels.data()[m])) + logarithm;
  }
}

// d logits of columns begin .. begin + width - 1, all rows; the columns lie within one strip.
struct LogitGradient {
  Logits& logits;
  const float *loss, *loss_gradient;
  const int64_t* labels;

  void compute(int64_t begin, Factor& part) const {
    const int64_t M = part.matrix().rows, width = part.matrix().columns;
    Buffer<float> rows(width * omp_get_max_threads());
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; ++m) {
      float* const row = rows.data() + omp_get_thread_num() * width;
      const float* const from = logits.row(m, begin);
      // log_sum_exp by way of the label's logit: the loss is the smaller number, and has more digits behind the point.
      const float scale = loss_gradient[m], picked = *logits.row(m, labels[m]), lost = loss[m];
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) row[i] = scale * exp_fast((from[i] - picked) - lost);
      if (labels[m] >= begin && labels[m] < begin + width) row[labels[m] - begin] -= scale;
      part.store_row(m, row);
    }
  }
};

void backward(const Attributes& attributes, Tensors& in, Tensors& gradients, Saved& saved) {
  constexpr int kFirstInput = 1, kLoss = kFirstInput + kNumInputs;  // behind the gradient of the loss; behind the inputs
  if (!saved.logits) fail("a backward pass without a forward pass");
  const Precision precision = precision_of(attributes);
  const auto requests = attributes.requests(kNumInputs);
  const int64_t M = num_rows(in[kFirstInput + kHidden]), C = in[kFirstInput + kHidden].shape.back(),
                V = in[kFirstInput + kWeight].shape[0];
  Buffer<int64_t> labels(M);
  read_labels(in[kFirstInput + kLabels], V, labels);
  const float* const weight = floats(in[kFirstInput + kWeight]);
  const Factor hidden(precision, floats(in[kFirstInput + kHidden]), M, C, 0, true);
  const LogitGradient logit_gradient = {*saved.logits, floats(in[kLoss]), floats(in[0]), labels.data()};
  static_assert(kStrip % kPart == 0, "a part of the gradient lies within a strip of the logits");
  for (int64_t begin = 0; begin < V; begin += kPart) {
    const int64_t width = std::min(kPart, V - begin);
    Factor part(precision, M, width);
    logit_gradient.compute(begin, part);
    if (requests[kHidden] != Request::kNull) {
      const Factor weight_part(precision, weight + begin * C, width, C, 0, true);
      matmul(part.matrix(), weight_part.matrix(), floats(gradients[kHidden]), 0,
             begin > 0 || requests[kHidden] == Request::kAdd);
    }
    if (requests[kWeight] != Request::kNull) {
      matmul(part.transposed(), hidden.matrix(), floats(gradients[kWeight]) + begin * C, 0,
             requests[kWeight] == Request::kAdd);
    }
  }
  if (requests[kLabels] == Request::kWrite) std::fill_n(floats(gradients[kLabels]), M, 0.0f);
}

}  // namespace

KOGPT2_SAVING_OPERATOR(kogpt2_cross_entropy, 3, 1, 1u << kLabels, shape, forward, backward, Saved);

}  // namespace kogpt2
