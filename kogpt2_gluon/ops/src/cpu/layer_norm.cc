// kogpt2_layer_norm(data, gamma, beta; epsilon=1e-5, req) -> out
//
//   out = gamma * x + beta,  x = (data - mean) * r,  r = 1 / sqrt(variance + epsilon)
//
// data and out (..., C), gamma and beta (C,); mean and variance are those of each row of C values, the variance taken
// around the mean in a second pass: a row far from 0 loses nothing.
// Backward, of g = d out, with h = gamma * g:
//   d data = r (h - mean(h) - x mean(h x))    d gamma = the column sums of g x    d beta = the column sums of g
// Saved: nothing; mean and r are computed again.
#include <algorithm>
#include <cmath>

#include "layer_norm_row.h"
#include "operator.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

enum Input { kData, kGamma, kBeta, kNumInputs };

constexpr int64_t kPieceRows = 16;  // whose sums for d gamma and d beta are taken first, whatever the threads

float epsilon_of(const Attributes& attributes) {
  const double epsilon = attributes.number("epsilon", 1e-5);
  if (!(epsilon > 0.0)) fail("epsilon=", epsilon, ": a number above 0");
  return static_cast<float>(epsilon);
}

void shape(const Attributes& attributes, Shapes& in, Shapes& out) {
  epsilon_of(attributes);
  expect_shape("gamma", in[kGamma], {in[kData].back()});
  expect_shape("beta", in[kBeta], {in[kData].back()});
  out[0] = in[kData];
}

void forward(const Attributes& attributes, Tensors& in, Tensors& out) {
  const float epsilon = epsilon_of(attributes);
  const int64_t M = num_rows(in[kData]), C = in[kData].shape.back();
  const float* const data = floats(in[kData]);
  const float* const gamma = floats(in[kGamma]);
  const float* const beta = floats(in[kBeta]);
  float* const normalized = floats(out[0]);
#pragma omp parallel for schedule(static)
  for (int64_t m = 0; m < M; ++m) {
    normalize_row(data + m * C, gamma, beta, C, epsilon, normalized + m * C);
  }
}

// One row's part of all three gradients: `to` as requested, the two sums added to.
void backward_row(const float* gradient, const float* data, const float* gamma, int64_t C, Moments at, float* to,
                  Request request, float* gamma_sums, float* beta_sums) {
  const float mean = at.mean, r = at.inverse_deviation;
  float sum = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : sum, product)
  for (int64_t i = 0; i < C; ++i) {
    const float x = (data[i] - mean) * r;
    gamma_sums[i] += gradient[i] * x;
    beta_sums[i] += gradient[i];
    sum += gamma[i] * gradient[i];
    product += gamma[i] * gradient[i] * x;
  }
  if (request == Request::kNull) return;
  const float mean_h = sum / static_cast<float>(C), mean_hx = product / static_cast<float>(C);
  const bool add = request == Request::kAdd;
#pragma omp simd
  for (int64_t i = 0; i < C; ++i) {
    const float x = (data[i] - mean) * r;
    to[i] = r * (gamma[i] * gradient[i] - mean_h - x * mean_hx) + (add ? to[i] : 0.0f);
  }
}

// to[i] (+)= the sum of rows 0 .. pieces - 1 of `sums`, rows 2 C apart, in this order.
void add_pieces(const float* sums, int64_t pieces, int64_t C, float* to, Request request) {
  if (request == Request::kNull) return;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < C; ++i) {
    float sum = 0.0f;
    for (int64_t piece = 0; piece < pieces; ++piece) sum += sums[piece * 2 * C + i];
    to[i] = sum + (request == Request::kAdd ? to[i] : 0.0f);
  }
}

void backward(const Attributes& attributes, Tensors& in, Tensors& gradients) {
  constexpr int kFirstInput = 1;  // behind the gradient of the output
  const float epsilon = epsilon_of(attributes);
  const auto requests = attributes.requests(kNumInputs);
  const int64_t M = num_rows(in[0]), C = in[0].shape.back();
  const float* const gradient = floats(in[0]);
  const float* const data = floats(in[kFirstInput + kData]);
  const float* const gamma = floats(in[kFirstInput + kGamma]);
  float* const data_gradient = floats(gradients[kData]);
  const int64_t pieces = (M + kPieceRows - 1) / kPieceRows;
  Buffer<float> sums(pieces * 2 * C);  // of each piece: C for gamma, C for beta
#pragma omp parallel for schedule(static)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    float* const gamma_sums = sums.data() + piece * 2 * C;
    std::fill_n(gamma_sums, 2 * C, 0.0f);
    for (int64_t m = piece * kPieceRows; m < std::min(M, (piece + 1) * kPieceRows); ++m) {
      backward_row(gradient + m * C, data + m * C, gamma, C, moments(data + m * C, C, epsilon), data_gradient + m * C,
                   requests[kData], gamma_sums, gamma_sums + C);
    }
  }
  add_pieces(sums.data(), pieces, C, floats(gradients[kGamma]), requests[kGamma]);
  add_pieces(sums.data() + C, pieces, C, floats(gradients[kBeta]), requests[kBeta]);
}

}  // namespace

KOGPT2_OPERATOR(kogpt2_layer_norm, 3, 1, 0, shape, forward, backward);

}  // namespace kogpt2
