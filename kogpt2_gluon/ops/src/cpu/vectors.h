// Vectors of float32 as wide as the compiler's instruction set has them, by GCC's vector extension: no intrinsics.
#pragma once
#include <cstdint>
#include <cstring>

#include "vector_math.h"

namespace kogpt2 {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vector __attribute__((vector_size(kLanes * 4)));
typedef uint32_t VectorBits __attribute__((vector_size(kLanes * 4)));
typedef int32_t VectorIndex __attribute__((vector_size(kLanes * 4)));
typedef uint16_t VectorHalf __attribute__((vector_size(kLanes * 2)));

KOGPT2_INLINE Vector load(const float* from) {
  Vector value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

KOGPT2_INLINE void store(const Vector& value, float* to) { std::memcpy(to, &value, sizeof value); }

// The nearest bfloat16 values, as float32; ties to even, NaN stays NaN.
KOGPT2_INLINE Vector rounded_to_bfloat16(const Vector& value) {
  VectorBits bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits = (bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u;
  Vector rounded;
  std::memcpy(&rounded, &bits, sizeof rounded);
  return value == value ? rounded : value;
}

// One stage of the transposition: in each pair of rows kStep apart, the squares off the diagonal change places.
template <int kStep>
KOGPT2_INLINE void exchange(Vector* rows) {
  VectorIndex low, high;  // 0 .. kLanes - 1 are lanes of the first row of a pair, the others of the second
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes; ++lane) {
    low[lane] = lane & kStep ? kLanes + lane - kStep : lane;
    high[lane] = lane & kStep ? kLanes + lane : lane + kStep;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & kStep) continue;
    const Vector first = rows[i], second = rows[i + kStep];
    rows[i] = __builtin_shuffle(first, second, low);
    rows[i + kStep] = __builtin_shuffle(first, second, high);
  }
}

// Transposes kLanes rows of kLanes values.
KOGPT2_INLINE void transpose(Vector* rows) {
  if (kLanes > 8) exchange<(kLanes > 8 ? 8 : 1)>(rows);
  if (kLanes > 4) exchange<(kLanes > 4 ? 4 : 1)>(rows);
  exchange<2>(rows);
  exchange<1>(rows);
}

}  // namespace kogpt2
