// Weights for generation, which are made once and read with every token. There are no gradients.
//
// kogpt2_pack_bfloat16(weight) -> packed
//
//   weight (N, K) float32, packed (N, 2 K) uint8: the bytes of each value rounded to bfloat16. MXNet's library
//   interface has no bfloat16 arrays.
//
// kogpt2_pack_int8(weight) -> packed
//
//   The nearest of -127 .. 127 to weight[n, k] / scale[n], where scale[n] = max |weight[n]| / 127 (1 for a row of zeros).
//   packed (N + ceil(4 N / K), K) uint8: N rows of int8, then N scales in float32, then zeros.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "decode_linear.h"
#include "matmul.h"

namespace kogpt2 {
namespace {

struct WeightOperator : NoGradient {
  enum Input { kWeight };
  enum Output { kPacked };

  explicit WeightOperator(const Attributes&) {}

  Arrays inputs() const { return {{"weight", 'f'}}; }
  Arrays outputs() const { return {{"packed", 'u'}}; }
};

struct PackBfloat16 : WeightOperator {
  using WeightOperator::WeightOperator;

  void shape(ShapeInference& shapes) const {
    const Shape weight = shapes.input(kWeight, 2);
    shapes.output(kPacked) = {weight[0], 2 * weight[1]};
  }

  void forward(const ForwardCall& call) const {
    MXTensor& weight = call.input(kWeight);
    round_to_bfloat16(floats(weight), call.output(kPacked).data<uint16_t>(), weight.size());
  }
};

struct PackInt8 : WeightOperator {
  using WeightOperator::WeightOperator;

  void shape(ShapeInference& shapes) const {
    const Shape weight = shapes.input(kWeight, 2);
    shapes.output(kPacked) = {weight[0] + static_cast<unsigned>(scale_rows(weight[0], weight[1])), weight[1]};
  }

  void forward(const ForwardCall& call) const {
    MXTensor& weight = call.input(kWeight);
    const int64_t N = weight.shape[0], K = weight.shape[1];
    int8_t* const packed = static_cast<int8_t*>(call.output(kPacked).data_ptr);
    std::vector<float> scales(static_cast<size_t>(N));
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; ++n) scales[n] = pack_row(floats(weight) + n * K, K, packed + n * K);
    for (int64_t n = 0; n < N; ++n) {
      if (!std::isfinite(scales[n])) fail("row ", n, " of the weight is not finite");
    }
    std::fill_n(packed + N * K, scale_rows(N, K) * K, int8_t{0});
    std::memcpy(packed + N * K, scales.data(), scales.size() * sizeof(float));
  }

 private:
  static constexpr float kSmallest = 1e-35f;  // a row of smaller values is 0: the inverse of its scale would overflow

  // Returns the scale, which is not finite if a value is not.
  static float pack_row(const float* row, int64_t K, int8_t* packed) {
    float largest = 0.0f, zero = 0.0f;
    for (int64_t k = 0; k < K; ++k) largest = std::max(largest, std::fabs(row[k])), zero += 0.0f * row[k];
    const float scale = largest < kSmallest ? 1.0f : largest / 127.0f, inverse = 1.0f / scale;
    for (int64_t k = 0; k < K; ++k) packed[k] = static_cast<int8_t>(std::nearbyint(inverse * row[k]));
    return scale + zero;
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_pack_int8, PackInt8);
KOGPT2_OPERATOR(kogpt2_pack_bfloat16, PackBfloat16);

}  // namespace kogpt2
