// kogpt2_add_rows(gradient, tokens, rows) -> done
//
//   gradient[tokens[m]] += rows[m], in place, in the order of m
//
// gradient (V, C), tokens (...) ids as int32 or float32, rows (..., C). done (1,) only says that the addition has
// happened. There is no backward pass.
//
// Each thread adds up columns of its own, row after row. So there is no race, and the order of the sums does not depend
// on the number of threads.
#include <algorithm>

#include "cpu_operator.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

constexpr int64_t kStrip = 128;  // columns taken at a time

struct AddRows {
  enum Input { kGradient, kTokens, kRows };
  enum Output { kDone };

  explicit AddRows(const Attributes&) {}

  Arrays inputs() const { return {{"gradient", 'f'}, {"tokens", 'n'}, {"rows", 'f'}}; }
  Arrays outputs() const { return {{"done", 'f'}}; }
  std::vector<int> written_inputs() const { return {kGradient}; }

  void shape(ShapeInference& shapes) const {
    Shape rows = shapes.input(kTokens);
    rows.push_back(shapes.input(kGradient, 2)[1]);
    shapes.settle(kRows, rows);
    shapes.output(kDone) = {1};
  }

  void forward(const ForwardCall& call) const {
    MXTensor &to_array = call.input(kGradient), &token_array = call.input(kTokens);
    const int64_t M = token_array.size(), V = to_array.shape[0], C = to_array.shape[1];
    const Ids tokens(token_array);
    Buffer<int64_t> ids(M);
    for (int64_t m = 0; m < M; ++m) ids.data()[m] = tokens.at(m, V);  // all are checked before anything is changed
    const int64_t* const id = ids.data();
    const float* const rows = floats(call.input(kRows));
    float* const gradient = floats(to_array);
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
    floats(call.output(kDone))[0] = 1.0f;
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_add_rows, AddRows);

}  // namespace kogpt2
