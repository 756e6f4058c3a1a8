// What the operators share that add a linear map of something to the residual stream: arrays, attributes and shapes.
#pragma once
#include "dropout.h"
#include "linear_map.h"

namespace kogpt2 {

struct LinearResidual {
  enum Input { kData, kWeight, kBias, kResidual, kSeed };
  enum Output { kOut };
  Precision precision;
  DropoutAttributes dropout;

  explicit LinearResidual(const Attributes& attributes)
      : precision(precision_of(attributes)), dropout(attributes) {}

  Arrays inputs() const {
    return {{"data", 'f'}, {"weight", 'f'}, {"bias", 'f'}, {"residual", 'f'}, {"seed", 'f'}};
  }
  Arrays outputs() const { return {{"out", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape out = settle_linear(shapes, shapes.input(kData), kWeight, kBias);
    shapes.settle(kResidual, out);
    shapes.settle(kSeed, {kSeedSize});
    shapes.output(kOut) = out;
  }
};

}  // namespace kogpt2
