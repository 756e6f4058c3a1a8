// Dropout at the end of a residual branch, which two operators share.
#pragma once
#include <optional>

#include "dropout.h"
#include "matmul.h"

namespace kogpt2 {

// branch = residual + mask * branch, in place. All (rows, columns); mask element (r, c) has the index r * columns + c,
// each row's begin rounded up to a whole Philox block.
void drop_and_add(const Dropout& dropout, float* branch, const float* residual, int64_t rows, int64_t columns);

// The gradient (rows, columns) of a branch behind its mask, as values and as a factor of products.
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

// The gradient of an input that is only added: the output's, as requested.
void pass_gradient(const float* gradient, int64_t count, float* to, Request request);

}  // namespace kogpt2
