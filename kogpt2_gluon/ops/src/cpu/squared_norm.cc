// kogpt2_squared_norm(gradient, ...; num_arrays) -> out
//
//   out[0] = the sum of the squares of all elements    out[1] = how many of them are not finite
//
// Arrays of any shape; out (2,). The squares are added up in float64 over pieces of a fixed size, then piece after piece
// on one thread, and rounded once: the threads do not change the sum. It is not finite where an element is not, or where
// it is beyond float32. There is no backward pass.
#include <algorithm>

#include "operator.h"
#include "pieces.h"
#include "scratch.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

struct Sum {
  double squares;
  int64_t not_finite;
};

Sum sum_of(const float* values, int64_t count) {
  double squares = 0.0;
  int32_t not_finite = 0;
#pragma omp simd reduction(+ : squares, not_finite)
  for (int64_t i = 0; i < count; ++i) {
    const double value = values[i];
    squares += value * value;
    not_finite += (bits_of(values[i]) & 0x7F800000u) == 0x7F800000u;
  }
  return {squares, not_finite};
}

MXReturnValue count_inputs(const AttributeMap& map, int* num_inputs, int* num_outputs) {
  return guarded([&] {
    *num_inputs = static_cast<int>(num_arrays(Attributes(map)));
    *num_outputs = 1;
  });
}

void shape(const Attributes&, Shapes&, Shapes& out) { out[0] = {2}; }

void forward(const Attributes&, Tensors& in, Tensors& out) {
  const std::vector<Piece> pieces = pieces_of(in, 1);
  const int64_t count = static_cast<int64_t>(pieces.size());
  Buffer<Sum> sums(count);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    sums.data()[i] = sum_of(floats(in[pieces[i].array]) + pieces[i].begin, pieces[i].count);
  }
  Sum total = {0.0, 0};
  for (int64_t i = 0; i < count; ++i) {
    total.squares += sums.data()[i].squares;
    total.not_finite += sums.data()[i].not_finite;
  }
  floats(out[0])[0] = static_cast<float>(total.squares);
  floats(out[0])[1] = static_cast<float>(total.not_finite);
}

}  // namespace

REGISTER_OP(kogpt2_squared_norm)
    .setParseAttrs(count_inputs)
    .setInferType(infer_type<0>)
    .setInferShape(infer_shape<shape>)
    .setForward(run<forward>, "cpu");

}  // namespace kogpt2
