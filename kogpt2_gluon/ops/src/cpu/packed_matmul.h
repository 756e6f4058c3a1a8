// Matrix products in float32 by a kernel of our own, for what oneDNN does slowly on some processors: factors that are
// rounded to bfloat16 where the processor has no fast product of bfloat16 numbers, and right factors whose rows lie a
// multiple of 4096 bytes apart.
#pragma once
#include "matmul.h"

namespace kogpt2 {

// Which factor all threads share. The other one is split among them: each thread packs a sliver of it (a few columns
// of the right factor, or a few rows of the left one) into its nearest cache and multiplies it with all of the shared
// factor. The smaller factor is the one to share.
enum class Shared { kLeft, kRight };

// What matmul() computes (matmul.h), with the threads of omp_get_max_threads(). Each element of c is a sum over k in
// one fixed order, so the result does not depend on the number of threads.
void packed_matmul(Shared shared, const Matrix& a, const Matrix& b, float* c, int64_t c_stride, bool add,
                   const float* bias);

}  // namespace kogpt2
