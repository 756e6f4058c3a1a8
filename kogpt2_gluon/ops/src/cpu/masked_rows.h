// Dropout at the end of a residual branch, which two operators share.
#pragma once
#include <optional>

#include "dropout.h"
#include "matmul.h"

namespace kogpt2 {

// branch = residual + mask * branch, in place. All arrays are (rows, columns). Element (r, c) of the mask has the index
// r * stride + c, where stride is `columns` rounded up to a whole Philox block.
void drop_and_add(const Dropout& dropout, float* branch, const float* residual, int64_t rows, int64_t columns);

// mask * gradient (rows, columns), the gradient of a branch, as values and as a factor of products.
class MaskedGradient {
 public:
  MaskedGradient(const Dropout& dropout, Precision precision, const float* gradient, int64_t rows, int64_t columns);

  const float* values() const { return values_; }
  const Factor& factor() const { return *factor_; }

 private:
  std::optional<Buffer<float>> memory_;
  const float* values_;
  std::optional<Factor> factor_;
};

// The gradient of an input that is only added: it is the gradient of the output, written or added as requested.
void pass_gradient(const float* gradient, int64_t count, float* to, Request request);

}  // namespace kogpt2
