// A warp works on a row, for LayerNorm and causal softmax: lane l has the packs at 8 l, 8 (l + 32), 8 (l + 64) ...
// The first kCached of them, which are rows of up to 1024 elements, stay in registers between the passes over a row;
// the others are read again.
#pragma once
#include "pack.cuh"

namespace kogpt2 {

constexpr int kCached = 4;
constexpr int kWarpsPerBlock = 4;
constexpr int kPassColumns = kWarp * kPack;
constexpr int64_t kCachedColumns = static_cast<int64_t>(kCached) * kPassColumns;

__device__ __forceinline__ int64_t lane_column() { return static_cast<int64_t>(threadIdx.x % kWarp) * kPack; }

__device__ __forceinline__ int64_t warp_row() {
  return static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
}

// Calls visit(column, slot) for every pack of this lane below `end`. A slot from 0 to kCached - 1 is a constant of the
// unrolled code, so that arrays indexed with it stay in registers; -1 means that the pack was not kept.
template <typename Visit>
__device__ __forceinline__ void for_packs(int64_t end, const Visit& visit) {
  const int64_t first = lane_column();
#pragma unroll
  for (int slot = 0; slot < kCached; ++slot) {
    const int64_t column = first + slot * kPassColumns;
    if (column < end) visit(column, slot);
  }
  for (int64_t column = first + kCachedColumns; column < end; column += kPassColumns) visit(column, -1);
}

template <typename... Parameters, typename... Arguments>
int start_rows(void (*kernel)(Parameters...), int64_t rows, cudaStream_t stream, Arguments... arguments) {
  const dim3 grid(static_cast<unsigned>(ceil_divide(rows, kWarpsPerBlock)));
  return start(kernel, grid, dim3(kWarp * kWarpsPerBlock), stream, arguments...);
}

}  // namespace kogpt2
