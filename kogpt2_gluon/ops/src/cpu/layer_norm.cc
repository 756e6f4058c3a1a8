// kogpt2_layer_norm(data, gamma, beta; epsilon=1e-5, req) -> out
//
//   out = gamma * x + beta,  x = (data - mean) * r,  r = 1 / sqrt(variance + epsilon)
//
// data and out (..., C), gamma and beta (C,). mean and variance are those of each row of C values. The variance is
// taken around the mean in a second pass, so that a row far from 0 loses no accuracy.
// Backward, with g = d out and h = gamma * g:
//   d data = r (h - mean(h) - x mean(h x))    d gamma = the column sums of g x    d beta = the column sums of g
// Saved: nothing; mean and r are computed again.
#include <algorithm>
#include <cmath>

#include "layer_norm_row.h"
#include "cpu_operator.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

constexpr int64_t kPieceRows = 16;  // the rows of a piece; its sums for d gamma and d beta do not depend on the threads

// One row's part of all three gradients: `to` is written as requested, and the row is added to the two sums.
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

struct LayerNorm {
  enum Input { kData, kGamma, kBeta };
  enum Output { kOut };
  float epsilon;

  explicit LayerNorm(const Attributes& attributes) {
    const double value = attributes.number("epsilon", 1e-5);
    if (!(value > 0.0)) fail("epsilon=", value, ": a number above 0");
    epsilon = static_cast<float>(value);
  }

  Arrays inputs() const { return {{"data", 'f'}, {"gamma", 'f'}, {"beta", 'f'}}; }
  Arrays outputs() const { return {{"out", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape data = shapes.input(kData);
    shapes.settle(kGamma, {data.back()});
    shapes.settle(kBeta, {data.back()});
    shapes.output(kOut) = data;
  }

  void forward(const ForwardCall& call) const {
    const int64_t M = num_rows(call.input(kData)), C = call.input(kData).shape.back();
    const float* const data = floats(call.input(kData));
    const float* const gamma = floats(call.input(kGamma));
    const float* const beta = floats(call.input(kBeta));
    float* const normalized = floats(call.output(kOut));
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; ++m) {
      normalize_row(data + m * C, gamma, beta, C, epsilon, normalized + m * C);
    }
  }

  void backward(const BackwardCall& call) const {
    const int64_t M = num_rows(call.input(kData)), C = call.input(kData).shape.back();
    const float* const gradient = floats(call.output_gradient(kOut));
    const float* const data = floats(call.input(kData));
    const float* const gamma = floats(call.input(kGamma));
    float* const data_gradient = floats(call.gradient(kData));
    const Request data_request = call.request(kData);
    const int64_t pieces = (M + kPieceRows - 1) / kPieceRows;
    Buffer<float> sums(pieces * 2 * C);  // for each piece: C sums for gamma, then C for beta
#pragma omp parallel for schedule(static)
    for (int64_t piece = 0; piece < pieces; ++piece) {
      float* const gamma_sums = sums.data() + piece * 2 * C;
      std::fill_n(gamma_sums, 2 * C, 0.0f);
      for (int64_t m = piece * kPieceRows; m < std::min(M, (piece + 1) * kPieceRows); ++m) {
        backward_row(gradient + m * C, data + m * C, gamma, C, moments(data + m * C, C, epsilon), data_gradient + m * C,
                     data_request, gamma_sums, gamma_sums + C);
      }
    }
    add_pieces(sums.data(), pieces, C, floats(call.gradient(kGamma)), call.request(kGamma));
    add_pieces(sums.data() + C, pieces, C, floats(call.gradient(kBeta)), call.request(kBeta));
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_layer_norm, LayerNorm);

}  // namespace kogpt2
