// kogpt2_squared_norm(gradient, ...; num_arrays) -> out
//
//   out[0] = the sum of the squares of all elements    out[1] = how many of them are not finite
//
// The arrays have any shape; out (2,). The squares are added up in float64 over pieces of a fixed size, then piece
// after piece in one thread, and rounded once, so that the number of threads does not change the sum. The sum is not
// finite if an element is not, or if it is beyond float32. There is no backward pass.
#include <algorithm>

#include "cpu_operator.h"
#include "pieces.h"
#include "scratch.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

struct Sum {
  double squares;
  int64_t not_finite;
};

KOGPT2_INLINE double square(float value) { return static_cast<double>(value) * static_cast<double>(value); }

KOGPT2_INLINE int32_t not_finite(float value) { return (bits_of(value) & 0x7F800000u) == 0x7F800000u; }

// Four places of the piece are read at once: memory delivers 40% more to several streams than to one.
Sum sum_of(const float* values, int64_t count) {
  const int64_t quarter = count / 4;
  const float *const second = values + quarter, *const third = second + quarter, *const fourth = third + quarter;
  double sum1 = 0.0, sum2 = 0.0, sum3 = 0.0, sum4 = 0.0;
  int32_t bad = 0;
#pragma omp simd reduction(+ : sum1, sum2, sum3, sum4, bad)
  for (int64_t i = 0; i < quarter; ++i) {
    sum1 += square(values[i]);
    sum2 += square(second[i]);
    sum3 += square(third[i]);
    sum4 += square(fourth[i]);
    bad += not_finite(values[i]) + not_finite(second[i]) + not_finite(third[i]) + not_finite(fourth[i]);
  }
  for (int64_t i = 4 * quarter; i < count; ++i) {
    sum1 += square(values[i]);
    bad += not_finite(values[i]);
  }
  return {(sum1 + sum2) + (sum3 + sum4), bad};
}

struct SquaredNorm {
  enum Output { kOut };
  int64_t num_arrays;

  explicit SquaredNorm(const Attributes& attributes) : num_arrays(attributes.integer("num_arrays", 1)) {}

  Arrays inputs() const {
    Arrays declared;
    for (int64_t i = 0; i < num_arrays; ++i) declared.push_back({"gradient", 'f', i});
    return declared;
  }
  Arrays outputs() const { return {{"out", 'f'}}; }

  void shape(ShapeInference& shapes) const { shapes.output(kOut) = {2}; }

  void forward(const ForwardCall& call) const {
    const std::vector<Piece> pieces = pieces_of(call.inputs(), 1);
    const int64_t count = static_cast<int64_t>(pieces.size());
    Buffer<Sum> sums(count);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; ++i) {
      sums.data()[i] = sum_of(floats(call.input(pieces[i].array)) + pieces[i].begin, pieces[i].count);
    }
    Sum total = {0.0, 0};
    for (int64_t i = 0; i < count; ++i) {
      total.squares += sums.data()[i].squares;
      total.not_finite += sums.data()[i].not_finite;
    }
    float* const out = floats(call.output(kOut));
    out[0] = static_cast<float>(total.squares);
    out[1] = static_cast<float>(total.not_finite);
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_squared_norm, SquaredNorm);

}  // namespace kogpt2
