#include "layer_norm_backward.h"

#include <algorithm>

#include "layer_norm_row.h"
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

}  // namespace

float epsilon_of(const Attributes& attributes) {
  const double value = attributes.number("epsilon", 1e-5);
  if (!(value > 0.0)) fail("epsilon=", value, ": a number above 0");
  return static_cast<float>(value);
}

LayerNormGradients layer_norm_gradients(const BackwardCall& call, size_t data, size_t gamma, size_t beta) {
  return {floats(call.gradient(data)), floats(call.gradient(gamma)), floats(call.gradient(beta)),
          call.request(data),          call.request(gamma),          call.request(beta)};
}

void layer_norm_backward(const float* gradient, const float* data, const float* gamma, int64_t M, int64_t C,
                         float epsilon, const LayerNormGradients& to) {
  const int64_t pieces = (M + kPieceRows - 1) / kPieceRows;
  Buffer<float> sums(pieces * 2 * C);  // for each piece: C sums for gamma, then C for beta
#pragma omp parallel for schedule(static)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    float* const gamma_sums = sums.data() + piece * 2 * C;
    std::fill_n(gamma_sums, 2 * C, 0.0f);
    for (int64_t m = piece * kPieceRows; m < std::min(M, (piece + 1) * kPieceRows); ++m) {
      backward_row(gradient + m * C, data + m * C, gamma, C, moments(data + m * C, C, epsilon), to.data + m * C,
                   to.data_request, gamma_sums, gamma_sums + C);
    }
  }
  add_pieces(sums.data(), pieces, C, to.gamma, to.gamma_request);
  add_pieces(sums.data() + C, pieces, C, to.beta, to.beta_request);
}

}  // namespace kogpt2
