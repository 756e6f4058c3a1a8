// Which kernel computes a product. The fastest one depends on the processor, so Python measures and sets it
// (ops/kernels.py); without that, a rule decides.
#pragma once
#include "matmul.h"

namespace kogpt2 {

enum class Kernel {
  kByRule = 0,
  kOneDnn = 1,
  kSharedLeft = 2,   // packed_matmul.h
  kSharedRight = 3,  // packed_matmul.h
  kPacked = 4,       // kSharedLeft or kSharedRight, by the shape
};

// True if factors in bfloat16 are stored as bfloat16 numbers and multiplied by oneDNN; false if they stay in float32
// and are rounded while they are packed. Both give products of the same numbers, with sums in float32.
bool bfloat16_by_onednn();

// The kernel for a b: kOneDnn, kSharedLeft or kSharedRight.
Kernel kernel_for(const Matrix& a, const Matrix& b);

// matmul() (matmul.h) by one of these three.
void multiply_by(Kernel kernel, const Matrix& a, const Matrix& b, float* c, int64_t c_stride, bool add,
                 const float* bias);

}  // namespace kogpt2
