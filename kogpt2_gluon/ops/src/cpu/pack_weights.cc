// Weights for generation, which are made once and read with every token. Both operators round to bfloat16, and neither
// has a gradient.
//
// kogpt2_pack_bfloat16(weight) -> packed
//
//   weight (N, K) float32, packed (N, 2 K) uint8: the bytes of each value rounded to bfloat16. MXNet's library
//   interface has no bfloat16 arrays.
//
// kogpt2_tile_bfloat16(weight) -> tiled
//
//   The same values as (bytes,) uint8, in the order that oneDNN reads fastest on this CPU. This pays for more than a
//   few rows of data.
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

struct TileBfloat16 : WeightOperator {
  using WeightOperator::WeightOperator;

  void shape(ShapeInference& shapes) const {
    const Shape weight = shapes.input(kWeight, 2);
    shapes.output(kPacked) = {static_cast<unsigned>(tiled_bytes(weight[1], weight[0]))};
  }

  void forward(const ForwardCall& call) const {
    MXTensor& weight = call.input(kWeight);
    const Factor rounded(Element::kBfloat16, floats(weight), weight.shape[0], weight.shape[1]);
    tile(rounded.transposed(), call.output(kPacked).data_ptr);
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_pack_bfloat16, PackBfloat16);
KOGPT2_OPERATOR(kogpt2_tile_bfloat16, TileBfloat16);

}  // namespace kogpt2
