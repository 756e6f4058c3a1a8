// How kernels read and write: in packs of 8 neighbouring elements of a row, float32 in registers. Also sums over
// threads.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "launch.h"
#include "math.cuh"

namespace kogpt2 {

constexpr int kWarp = 32;

// ---- a matrix -------------------------------------------------------------------------------------------------------

// A matrix (rows, columns) without gaps. With `vector` every pack is whole and is at a multiple of its own size.
struct Matrix {
  int64_t rows, columns;
  bool vector;

  __device__ __forceinline__ int count(int64_t column) const {
    return columns - column < kPack ? static_cast<int>(columns - column) : kPack;
  }

  // The Philox block of the pack at `column`. Every row begins with a new block.
  __device__ __forceinline__ uint64_t block(int64_t row, int64_t column) const {
    return static_cast<uint64_t>(row * ((columns + kPack - 1) / kPack) + column / kPack);
  }
};

template <typename... Arrays>
Matrix make_matrix(int64_t rows, int64_t columns, const Arrays*... arrays) {
  const uintptr_t together = (uintptr_t{0} | ... | reinterpret_cast<uintptr_t>(arrays));
  return {rows, columns, columns % kPack == 0 && together % 16 == 0};
}

// ---- packs ----------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ void from_float(float value, float& to) { to = value; }
__device__ __forceinline__ void from_float(float value, __half& to) { to = __float2half_rn(value); }

__device__ __forceinline__ void load_whole(const float* from, float (&to)[kPack]) {
  const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}

__device__ __forceinline__ void load_whole(const __half* from, float (&to)[kPack]) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const __half2* pairs = reinterpret_cast<const __half2*>(&bits);
#pragma unroll
  for (int k = 0; k < kPack / 2; ++k) {
    const float2 pair = __half22float2(pairs[k]);
    to[2 * k] = pair.x, to[2 * k + 1] = pair.y;
  }
}

__device__ __forceinline__ void store_whole(const float (&from)[kPack], float* to) {
  reinterpret_cast<float4*>(to)[0] = make_float4(from[0], from[1], from[2], from[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(from[4], from[5], from[6], from[7]);
}

__device__ __forceinline__ void store_whole(const float (&from)[kPack], __half* to) {
  uint4 bits;
  __half2* pairs = reinterpret_cast<__half2*>(&bits);
#pragma unroll
  for (int k = 0; k < kPack / 2; ++k) pairs[k] = __floats2half2_rn(from[2 * k], from[2 * k + 1]);
  *reinterpret_cast<uint4*>(to) = bits;
}

// The first `count` elements at `from`; the others are `otherwise`. `vector` promises a whole, aligned pack.
template <typename T>
__device__ __forceinline__ void load(const T* from, int count, bool vector, float (&to)[kPack],
                                     float otherwise = 0.0f) {
  if (vector) {
    load_whole(from, to);
  } else {
#pragma unroll
    for (int k = 0; k < kPack; ++k) to[k] = k < count ? to_float(from[k]) : otherwise;
  }
}

template <typename T>
__device__ __forceinline__ void store(const float (&from)[kPack], T* to, int count, bool vector) {
  if (vector) {
    store_whole(from, to);
  } else {
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      if (k < count) from_float(from[k], to[k]);
    }
  }
}

// Writes or adds a pack of a gradient, as requested.
template <typename T>
__device__ __forceinline__ void store_gradient(float (&values)[kPack], T* to, int request, int count, bool vector) {
  if (request == KOGPT2_NULL) return;
  if (request == KOGPT2_ADD) {
    float before[kPack];
    load(to, count, vector, before);
#pragma unroll
    for (int k = 0; k < kPack; ++k) values[k] += before[k];
  }
  store(values, to, count, vector);
}

__device__ __forceinline__ Dropout read_dropout(const Dropout* dropout) { return dropout ? *dropout : Dropout(); }

// The multipliers of the pack at (row, column).
__device__ __forceinline__ void load_mask(const Dropout& dropout, const Matrix& matrix, int64_t row, int64_t column,
                                          float (&mask)[kPack]) {
  if (dropout.active()) {
    keep_pack(dropout, matrix.block(row, column), mask);
  } else {
#pragma unroll
    for (int k = 0; k < kPack; ++k) mask[k] = 1.0f;
  }
}

// ---- sums over threads ----------------------------------------------------------------------------------------------

// Every lane gets the warp's sum; all 32 lanes call it. The order of additions is the same in every lane and every run.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, offset);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, offset));
  }
  return value;
}

// Two sums over a block of one dimension; every thread gets both. `shared` has a word for each sum and warp, and is
// free again when the block next synchronises.
template <int kWarps>
__device__ __forceinline__ void block_sums(float& a, float& b, float (&shared)[2][kWarps]) {
  a = warp_sum(a);
  b = warp_sum(b);
  if (threadIdx.x % kWarp == 0) {
    shared[0][threadIdx.x / kWarp] = a;
    shared[1][threadIdx.x / kWarp] = b;
  }
  __syncthreads();
  a = b = 0.0f;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    a += shared[0][warp];
    b += shared[1][warp];
  }
}

// ---- starting a kernel ----------------------------------------------------------------------------------------------

template <typename... Parameters, typename... Arguments>
int start(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream, Arguments... arguments) {
#ifdef __CUDACC__
  kernel<<<grid, block, 0, stream>>>(static_cast<Parameters>(arguments)...);
#else
  run_on_host(grid, block, [&] { kernel(static_cast<Parameters>(arguments)...); });  // the tests' emulation of a GPU
#endif
  return static_cast<int>(cudaGetLastError());
}

inline int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Runs the statement with T as the storage type that `dtype` names.
#define KOGPT2_WITH_TYPE(dtype, ...)            \
  switch (dtype) {                              \
    case KOGPT2_FLOAT32: {                      \
      using T = float;                          \
      __VA_ARGS__;                              \
    }                                           \
    case KOGPT2_FLOAT16: {                      \
      using T = __half;                         \
      __VA_ARGS__;                              \
    }                                           \
    default:                                    \
      return cudaErrorInvalidValue;             \
  }

}  // namespace kogpt2
