// Softmax cross-entropy over a large vocabulary; the mathematics is in launch.h. A block works on a row. The forward
// pass reads the logits once, with a running maximum. The backward pass reads them once and writes the gradient, which
// may overwrite them.
#include "pack.cuh"

namespace kogpt2 {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kStride = static_cast<int64_t>(kThreads) * kPack;

__device__ __forceinline__ LogSum warp_log_sum(LogSum value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    LogSum other;
    other.maximum = __shfl_xor_sync(0xFFFFFFFFu, value.maximum, offset);
    other.sum = __shfl_xor_sync(0xFFFFFFFFu, value.sum, offset);
    value.merge(other);
  }
  return value;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const T* logits, const int32_t* labels, float* loss, float* log_sum, const Matrix matrix) {
  __shared__ float maxima[kThreads / kWarp], sums[kThreads / kWarp];
  const int64_t row = blockIdx.x;
  const T* const from = logits + row * matrix.columns;
  LogSum mine;
  for (int64_t column = threadIdx.x * kPack; column < matrix.columns; column += kStride) {
    float values[kPack];
    load(from + column, matrix.count(column), matrix.vector, values, -INFINITY);
    mine.add(values);
  }
  mine = warp_log_sum(mine);
  if (threadIdx.x % kWarp == 0) {
    maxima[threadIdx.x / kWarp] = mine.maximum;
    sums[threadIdx.x / kWarp] = mine.sum;
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < kThreads / kWarp; ++warp) mine.merge({maxima[warp], sums[warp]});
  const float total = mine.log();
  const int32_t label = labels[row];
  log_sum[row] = total;
  if (label < 0) {
    loss[row] = 0.0f;
  } else {
    loss[row] = label < matrix.columns ? total - to_float(from[label]) : NAN;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const T* logits, const int32_t* labels, const float* log_sum, const float* loss_gradient,
                    T* logits_gradient, const int request, const Matrix matrix) {
  const int64_t row = blockIdx.x;
  const int64_t begin = row * matrix.columns;
  const int32_t label = labels[row];
  const float row_log_sum = log_sum[row], upstream = loss_gradient[row];
  for (int64_t column = threadIdx.x * kPack; column < matrix.columns; column += kStride) {
    const int count = matrix.count(column);
    float values[kPack];
    load(logits + begin + column, count, matrix.vector, values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      // The gradient of an ignored row is 0, even if the gradient of its loss is not a number.
      values[k] = label < 0 ? 0.0f : cross_entropy_gradient(values[k], row_log_sum, column + k == label, upstream);
    }
    store_gradient(values, logits_gradient + begin + column, request, count, matrix.vector);
  }
}

template <typename T>
int forward(const T* logits, const int32_t* labels, float* loss, float* log_sum, int64_t rows, int64_t classes,
            cudaStream_t stream) {
  const Matrix matrix = make_matrix(rows, classes, logits);
  return start(forward_kernel<T>, dim3(static_cast<unsigned>(rows)), dim3(kThreads), stream, logits, labels, loss,
               log_sum, matrix);
}

template <typename T>
int backward(const T* logits, const int32_t* labels, const float* log_sum, const float* loss_gradient,
             T* logits_gradient, int request, int64_t rows, int64_t classes, cudaStream_t stream) {
  const Matrix matrix = make_matrix(rows, classes, logits, logits_gradient);
  return start(backward_kernel<T>, dim3(static_cast<unsigned>(rows)), dim3(kThreads), stream, logits, labels, log_sum,
               loss_gradient, logits_gradient, request, matrix);
}

}  // namespace
}  // namespace kogpt2

extern "C" {

int kogpt2_cuda_cross_entropy_forward(const void* logits, const int32_t* labels, float* loss, float* log_sum,
                                      int64_t rows, int64_t classes, int dtype, cudaStream_t stream) {
  using namespace kogpt2;
  if (rows < 1 || classes < 1) return cudaErrorInvalidValue;
  KOGPT2_WITH_TYPE(dtype,
                   return forward(static_cast<const T*>(logits), labels, loss, log_sum, rows, classes, stream))
}

int kogpt2_cuda_cross_entropy_backward(const void* logits, const int32_t* labels, const float* log_sum,
                                       const float* loss_gradient, void* logits_gradient, int logits_request,
                                       int64_t rows, int64_t classes, int dtype, cudaStream_t stream) {
  using namespace kogpt2;
  if (rows < 1 || classes < 1) return cudaErrorInvalidValue;
  if (logits_request == KOGPT2_NULL) return cudaSuccess;
  KOGPT2_WITH_TYPE(dtype, return backward(static_cast<const T*>(logits), labels, log_sum, loss_gradient,
                                          static_cast<T*>(logits_gradient), logits_request, rows, classes, stream))
}

}  // extern "C"
