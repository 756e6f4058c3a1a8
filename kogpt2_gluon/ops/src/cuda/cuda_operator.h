/* What the CUDA operators need in addition to common/operator.h: errors, storage types, requests, device memory.
 *
 * MXNet's memory for an operator is one piece, and a second request for it makes the first invalid: Workspace asks once.
 */
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "../common/operator.h"
#include "launch.h"

#ifndef KOGPT2_DEVICE
#define KOGPT2_DEVICE "gpu"  // tests that run the kernels on the host say "cpu"
#endif

namespace kogpt2 {

struct Gpu {
  static constexpr char kName[] = KOGPT2_DEVICE;
  static void begin() {}
};

inline void check(int error) {
  if (error != cudaSuccess) fail("CUDA: ", kogpt2_cuda_error_text(error));
}

inline int storage_of(const MXTensor& tensor) {
  return tensor.dtype == mxnet::ext::kFloat16 ? KOGPT2_FLOAT16 : KOGPT2_FLOAT32;
}

// ---- device memory --------------------------------------------------------------------------------------------------

// Device memory for the time of one call, asked for as one piece and dealt out in parts.
class Workspace {
 public:
  Workspace(const OpResource& resource, std::initializer_list<int64_t> parts) {
    int64_t total = 0;
    for (int64_t bytes : parts) {
      offsets_.push_back(total);
      total += (bytes + 255) / 256 * 256;
    }
    if (total > INT_MAX) fail("a workspace of ", total, " bytes, and MXNet gives at most ", INT_MAX, ": take a smaller batch");
    base_ = total > 0 ? static_cast<char*>(resource.alloc_gpu(static_cast<int>(total))) : nullptr;
  }

  void* operator[](size_t part) const { return base_ + offsets_[part]; }

 private:
  char* base_;
  std::vector<int64_t> offsets_;
};

inline cudaStream_t stream_of(const OpResource& resource) {
  return static_cast<cudaStream_t>(static_cast<void*>(resource.get_cuda_stream()));
}

// Requests as launch.h has them.
inline int request_code(const BackwardCall& call, size_t input) {
  switch (call.request(input)) {
    case Request::kNull: return KOGPT2_NULL;
    case Request::kWrite: return KOGPT2_WRITE;
    default: return KOGPT2_ADD;
  }
}

inline void write_zeros(MXTensor& array, cudaStream_t stream) {
  const size_t bytes = static_cast<size_t>(array.size()) * (array.dtype == mxnet::ext::kFloat16 ? 2 : 4);
  check(cudaMemsetAsync(array.data_ptr, 0, bytes, stream));
}

// The gradient of an input that has none, such as labels or a seed: zeros where it must be written.
inline void write_zeros(const BackwardCall& call, size_t input) {
  if (call.request(input) == Request::kWrite) write_zeros(call.gradient(input), stream_of(call.resource));
}

}  // namespace kogpt2

#define KOGPT2_CUDA_OPERATOR(name, Op) KOGPT2_DEFINE_OPERATOR(name, Op, kogpt2::Gpu)
