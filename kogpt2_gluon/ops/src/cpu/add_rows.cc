// kogpt2_add_rows(gradient, tokens, rows) -> done
//
//   gradient[tokens[m]] += rows[m], in place, in the order of m
//
// gradient (V, C), tokens (...) ids as int32 or float32, rows (..., C), done (1,), which only says that it has happened.
// There is no backward pass.
//
// Each thread adds up columns of its own, row after row: no race, and one order of the sums whatever the threads.
#include <algorithm>

#include "operator.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

enum Input { kGradient, kTokens, kRows };

constexpr int64_t kStrip = 128;  // columns taken at a time

void shape(const Attributes&, Shapes& in, Shapes& out) {
  expect_axes("gradient", in[kGradient], 2);
  Shape wanted = in[kTokens];
  wanted.push_back(in[kGradient][1]);
  expect_shape("rows", in[kRows], wanted);
  out[0] = {1};
}

void forward(const Attributes&, Tensors& in, Tensors& out) {
  const int64_t M = in[kTokens].size(), V = in[kGradient].shape[0], C = in[kGradient].shape[1];
  const Ids tokens(in[kTokens]);
  Buffer<int64_t> ids(M);
  for (int64_t m = 0; m < M; ++m) ids.data()[m] = tokens.at(m, V);  // all of them before anything is changed
  const int64_t* const id = ids.data();
  const float* const rows = floats(in[kRows]);
  float* const gradient = floats(in[kGradient]);
#pragma omp parallel for schedule(static)
  for (int64_t begin = 0; begin < C; begin += kStrip) {
    const int64_t end = std::min(C, begin + kStrip);
    for (int64_t m = 0; m < M; ++m) {
      float* const to = gradient + id[m] * C;
      const float* const from = rows + m * C;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) to[i] += from[i];
    }
  }
  floats(out[0])[0] = 1.0f;
}

MXReturnValue changed_inputs(const AttributeMap&, std::vector<int>* indices) {
  indices->push_back(kGradient);
  return mxnet::ext::MX_SUCCESS;
}

}  // namespace

REGISTER_OP(kogpt2_add_rows)
    .setParseAttrs(count<3, 1>)
    .setInferType(infer_type<1u << kTokens>)
    .setInferShape(infer_shape<shape>)
    .setMutateInputs(changed_inputs)
    .setForward(run<forward>, "cpu");

}  // namespace kogpt2
