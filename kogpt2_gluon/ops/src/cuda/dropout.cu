// What the CUDA operators share: error texts, and the dropout's seed, decoded on the GPU so that nobody waits for it.
#include "pack.cuh"

namespace kogpt2 {
namespace {

__global__ void decode_kernel(const float* seed, const double probability, const uint32_t site, Dropout* dropout) {
  *dropout = decode_seed(seed, probability, site);
}

}  // namespace
}  // namespace kogpt2

extern "C" {

const char* kogpt2_cuda_error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

int64_t kogpt2_cuda_dropout_size(void) { return static_cast<int64_t>(sizeof(kogpt2::Dropout)); }

int kogpt2_cuda_decode_seed(const float* seed, double probability, uint32_t site, void* dropout, cudaStream_t stream) {
  using namespace kogpt2;
  if (!(probability >= 0.0 && probability < 1.0)) return cudaErrorInvalidValue;
  return start(decode_kernel, dim3(1), dim3(1), stream, seed, probability, site, static_cast<Dropout*>(dropout));
}

}  // extern "C"
