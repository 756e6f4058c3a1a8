// As much of CUDA's own header as the kernels use, for the host: g++ compiles the .cu files with this in its place, and
// every thread of a block runs, one after the other between two meetings. Slow, and exact: every index is the GPU's.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static  // blocks run one after the other

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1 };
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument";
}

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

void run_on_host(dim3 grid, dim3 block, const std::function<void()>& kernel);

// Both return when all threads of the block, or all 32 of the warp, have come.
void __syncthreads();
void meet_warp();
uint32_t& exchange_word(unsigned lane_of_thread);  // one of this warp's 32
unsigned lane();

template <typename T>
T __shfl_xor_sync(unsigned, T value, int offset) {
  static_assert(sizeof(T) == 4, "words only");
  std::memcpy(&exchange_word(lane()), &value, 4);
  meet_warp();
  T other;
  std::memcpy(&other, &exchange_word(lane() ^ static_cast<unsigned>(offset)), 4);
  meet_warp();
  return other;
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
