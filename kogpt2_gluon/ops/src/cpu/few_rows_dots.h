// The products of few_rows.h for a weight in bfloat16, by the processor's instruction that multiplies pairs of bfloat16
// and adds them to float32. The data is rounded to bfloat16 too.
#pragma once
#include <cstdint>

namespace kogpt2 {

// True on AMD's processors that have the instruction, which multiply twice as many numbers with it as in float32. Those
// of Intel multiply as many or half as many. ONEDNN_MAX_CPU_ISA limits it, as it limits oneDNN.
bool has_fast_dots();

// What multiply_rows() computes, with bfloat16 factors. Call it only where has_fast_dots().
void multiply_by_dots(const float* data, const void* weight, int64_t M, int64_t N, int64_t K, float* out);

}  // namespace kogpt2
