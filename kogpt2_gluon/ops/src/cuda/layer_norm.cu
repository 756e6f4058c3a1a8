// LayerNorm: the mathematics is in launch.h.
//
// Forward: a warp works on a row. Backward: a block goes through its share of the rows, several rows at a time, with
// `warps` warps on each. A thread keeps to its 8 columns, and so has their gamma and beta gradients in registers. That
// reads both matrices once. Rows wider than 8192 take two passes: the means of each row, then the pass of the bias
// operators (column_pass.cuh).
#include "column_pass.cuh"
#include "row_packs.cuh"

namespace kogpt2 {
namespace {

// ---- forward --------------------------------------------------------------------------------------------------------

template <typename T>
__global__ void __launch_bounds__(kWarp * kWarpsPerBlock)
    forward_kernel(const T* data, const T* gamma, const T* beta, T* out, float* mean, float* inverse_std,
                   const float epsilon, const Matrix matrix) {
  const int64_t row = warp_row();
  if (row >= matrix.rows) return;
  const T* const from = data + row * matrix.columns;
  float cached[kCached][kPack];

  float sum = 0.0f;
  for_packs(matrix.columns, [&](int64_t column, int slot) {
    float fresh[kPack];
    float(&values)[kPack] = slot < 0 ? fresh : cached[slot];
    load(from + column, matrix.count(column), matrix.vector, values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) sum += values[k];
  });
  const float average = warp_sum(sum) / static_cast<float>(matrix.columns);

  // The squares of the differences from the mean: the mean of squares minus the square of the mean would cancel.
  float squares = 0.0f;
  for_packs(matrix.columns, [&](int64_t column, int slot) {
    const int count = matrix.count(column);
    float fresh[kPack];
    float(&values)[kPack] = slot < 0 ? fresh : cached[slot];
    if (slot < 0) load(from + column, count, matrix.vector, values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      values[k] -= average;
      if (k < count) squares += values[k] * values[k];
    }
  });
  const float scale = rsqrtf(warp_sum(squares) / static_cast<float>(matrix.columns) + epsilon);

  for_packs(matrix.columns, [&](int64_t column, int slot) {
    const int count = matrix.count(column);
    float fresh[kPack], factor[kPack], offset[kPack];
    float(&values)[kPack] = slot < 0 ? fresh : cached[slot];
    load(gamma + column, count, matrix.vector, factor);
    load(beta + column, count, matrix.vector, offset);
    if (slot < 0) {
      load(from + column, count, matrix.vector, values);
#pragma unroll
      for (int k = 0; k < kPack; ++k) values[k] -= average;
    }
#pragma unroll
    for (int k = 0; k < kPack; ++k) values[k] = values[k] * scale * factor[k] + offset[k];
    store(values, out + row * matrix.columns + column, count, matrix.vector);
  });
  if (threadIdx.x % kWarp == 0) {
    mean[row] = average;
    inverse_std[row] = scale;
  }
}

// ---- backward, rows of up to 8192 -----------------------------------------------------------------------------------

constexpr int kMostThreads = 512;
constexpr int kMostWarps = 32;
constexpr int64_t kWidest = static_cast<int64_t>(kMostWarps) * kWarp * kPack;

template <typename T>
struct BackwardArrays {
  const T *data, *gamma, *gradient;
  const float *mean, *inverse_std;
  T* data_gradient;
  int data_request;
};

// Line 0 gets the sums of all lines of the block, added in their order; all threads call it. With several lines a block
// has at most kMostThreads threads.
__device__ __forceinline__ void add_lines(float (&sums)[kPack]) {
  __shared__ float shared[kPack][kMostThreads];
  if (blockDim.y == 1) return;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kPack; ++k) shared[k][thread] = sums[k];
  __syncthreads();
  if (threadIdx.y > 0) return;
  for (unsigned line = 1; line < blockDim.y; ++line) {
#pragma unroll
    for (int k = 0; k < kPack; ++k) sums[k] += shared[k][line * blockDim.x + threadIdx.x];
  }
}

// blockDim (32 * warps, lines): a line works on one row at a time. partials (blocks, 2, columns).
template <typename T>
__global__ void __launch_bounds__(kMostWarps* kWarp)
    backward_kernel(const BackwardArrays<T> arrays, const Matrix matrix, float* partials) {
  // Two sets for every warp: the next row's sums are written while a late thread may still read those of the last row.
  __shared__ float shared[2][2][kMostWarps];
  const unsigned warps = blockDim.x / kWarp;
  const unsigned warp = threadIdx.y * warps + threadIdx.x / kWarp;
  const int64_t column = static_cast<int64_t>(threadIdx.x) * kPack;
  const int count = column < matrix.columns ? matrix.count(column) : 0;
  const bool vector = matrix.vector && count > 0;
  const float mean_factor = 1.0f / static_cast<float>(matrix.columns);

  float gamma[kPack], gamma_sum[kPack] = {}, beta_sum[kPack] = {};
  load(arrays.gamma + column, count, vector, gamma);
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int turn = 0;
  // All lines make the same number of rounds, because the block synchronises in every round.
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.y; first < matrix.rows; first += step, turn ^= 1) {
    const int64_t row = first + threadIdx.y;
    const bool mine = row < matrix.rows && count > 0;
    const int64_t at = row * matrix.columns + column;
    const int here = mine ? count : 0;
    const float inverse_std = mine ? arrays.inverse_std[row] : 0.0f, mean = mine ? arrays.mean[row] : 0.0f;
    float normal[kPack], d[kPack];
    load(arrays.data + at, here, vector && mine, normal, mean);
    load(arrays.gradient + at, here, vector && mine, d);
    float sum = 0.0f, sum_normal = 0.0f;
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      normal[k] = (normal[k] - mean) * inverse_std;
      gamma_sum[k] += d[k] * normal[k];
      beta_sum[k] += d[k];
      d[k] *= gamma[k];
      sum += d[k];
      sum_normal += d[k] * normal[k];
    }
    sum = warp_sum(sum);
    sum_normal = warp_sum(sum_normal);
    if (threadIdx.x % kWarp == 0) {
      shared[turn][0][warp] = sum;
      shared[turn][1][warp] = sum_normal;
    }
    __syncthreads();
    sum = sum_normal = 0.0f;
    for (unsigned other = threadIdx.y * warps; other < (threadIdx.y + 1) * warps; ++other) {
      sum += shared[turn][0][other];
      sum_normal += shared[turn][1][other];
    }
    if (mine) {
#pragma unroll
      for (int k = 0; k < kPack; ++k) {
        d[k] = layer_norm_gradient(d[k], normal[k], inverse_std, sum * mean_factor, sum_normal * mean_factor);
      }
      store_gradient(d, arrays.data_gradient + at, arrays.data_request, count, matrix.vector);
    }
  }
  if (partials == nullptr) return;  // for the whole grid
  float* const to = partials + static_cast<int64_t>(blockIdx.x) * 2 * matrix.columns + column;
  add_lines(gamma_sum);
  if (threadIdx.y == 0) store(gamma_sum, to, count, false);
  add_lines(beta_sum);
  if (threadIdx.y == 0) store(beta_sum, to + matrix.columns, count, false);
}

// ---- backward, wider rows -------------------------------------------------------------------------------------------

constexpr int kWideThreads = 256;

// means (rows, 2): of d and of d * normal.
template <typename T>
__global__ void __launch_bounds__(kWideThreads)
    row_means(const BackwardArrays<T> arrays, const Matrix matrix, float* means) {
  __shared__ float shared[2][kWideThreads / kWarp];
  const int64_t row = blockIdx.x;
  const float mean = arrays.mean[row], inverse_std = arrays.inverse_std[row];
  float sum = 0.0f, sum_normal = 0.0f;
  for (int64_t column = threadIdx.x * kPack; column < matrix.columns; column += kWideThreads * kPack) {
    const int count = matrix.count(column);
    const int64_t at = row * matrix.columns + column;
    float values[kPack], d[kPack], gamma[kPack];
    load(arrays.data + at, count, matrix.vector, values);
    load(arrays.gradient + at, count, matrix.vector, d);
    load(arrays.gamma + column, count, matrix.vector, gamma);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      sum += d[k] * gamma[k];
      sum_normal += d[k] * gamma[k] * (values[k] - mean) * inverse_std;
    }
  }
  block_sums(sum, sum_normal, shared);
  if (threadIdx.x == 0) {
    means[2 * row] = sum / static_cast<float>(matrix.columns);
    means[2 * row + 1] = sum_normal / static_cast<float>(matrix.columns);
  }
}

template <typename T>
struct WideBackward {
  static constexpr int kSums = 2;
  BackwardArrays<T> arrays;
  const float* means;

  struct Column {
    float gamma[kPack];
  };

  __device__ __forceinline__ Column begin(int64_t column, int count, bool vector) const {
    Column constants;
    load(arrays.gamma + column, count, vector, constants.gamma);
    return constants;
  }

  __device__ __forceinline__ void row(const Column& constants, const Matrix& matrix, int64_t row, int64_t column,
                                      int count, float (&sums)[kSums][kPack]) const {
    const int64_t at = row * matrix.columns + column;
    const float mean = arrays.mean[row], inverse_std = arrays.inverse_std[row];
    float normal[kPack], d[kPack];
    load(arrays.data + at, count, matrix.vector, normal);
    load(arrays.gradient + at, count, matrix.vector, d);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      normal[k] = (normal[k] - mean) * inverse_std;
      sums[0][k] += d[k] * normal[k];
      sums[1][k] += d[k];
      d[k] = layer_norm_gradient(d[k] * constants.gamma[k], normal[k], inverse_std, means[2 * row], means[2 * row + 1]);
    }
    store_gradient(d, arrays.data_gradient + at, arrays.data_request, count, matrix.vector);
  }
};

// ---- starting them --------------------------------------------------------------------------------------------------

// Blocks and lines of backward_kernel: up to 512 threads a block (one line may need 1024), and as many blocks as fill a
// V100 or A100 but not more, which keeps the partial sums small. The number does not depend on the GPU, so that the
// order of additions is the same on all GPUs.
struct Layout {
  int64_t warps, lines, blocks;

  Layout(int64_t rows, int64_t columns) {
    warps = ceil_divide(columns, kPack * kWarp);
    const int64_t fit = kMostThreads / (warps * kWarp);
    lines = fit > 1 ? fit : 1;
    constexpr int64_t kBlocks = 256;
    const int64_t needed = ceil_divide(rows, lines);
    blocks = needed < kBlocks ? needed : kBlocks;
  }
};

template <typename T>
int forward(const T* data, const T* gamma, const T* beta, T* out, float* mean, float* inverse_std, float epsilon,
            int64_t rows, int64_t columns, cudaStream_t stream) {
  const Matrix matrix = make_matrix(rows, columns, data, gamma, beta, out);
  return start_rows(forward_kernel<T>, rows, stream, data, gamma, beta, out, mean, inverse_std, epsilon, matrix);
}

template <typename T>
int backward(const BackwardArrays<T>& arrays, T* gamma_gradient, T* beta_gradient, int gamma_request, int beta_request,
             int64_t rows, int64_t columns, float* workspace, cudaStream_t stream) {
  const Matrix matrix =
      make_matrix(rows, columns, arrays.data, arrays.gamma, arrays.gradient, arrays.data_gradient);
  if (columns > kWidest) {
    float* const means = workspace + sums_workspace(rows, columns, 2) / static_cast<int64_t>(sizeof(float));
    const int error = start(row_means<T>, dim3(static_cast<unsigned>(rows)), dim3(kWideThreads), stream, arrays, matrix,
                            means);
    if (error != cudaSuccess) return error;
    return start_backward<T>(WideBackward<T>{arrays, means}, matrix, workspace, {gamma_gradient, beta_gradient},
                             {gamma_request, beta_request}, stream);
  }
  const Layout layout(rows, columns);
  const bool sums_wanted = gamma_request != KOGPT2_NULL || beta_request != KOGPT2_NULL;
  const dim3 block(static_cast<unsigned>(layout.warps * kWarp), static_cast<unsigned>(layout.lines));
  int error = start(backward_kernel<T>, dim3(static_cast<unsigned>(layout.blocks)), block, stream, arrays, matrix,
                    sums_wanted ? workspace : nullptr);
  const int64_t runs = layout.blocks;
  if (error == cudaSuccess) {
    error = start_finish_sums(workspace, runs, 2 * columns, columns, gamma_gradient, gamma_request, stream);
  }
  if (error == cudaSuccess) {
    error = start_finish_sums(workspace + columns, runs, 2 * columns, columns, beta_gradient, beta_request, stream);
  }
  return error;
}

}  // namespace
}  // namespace kogpt2

extern "C" {

int kogpt2_cuda_layer_norm_forward(const void* data, const void* gamma, const void* beta, void* out, float* mean,
                                   float* inverse_std, float epsilon, int64_t rows, int64_t columns, int dtype,
                                   cudaStream_t stream) {
  using namespace kogpt2;
  if (rows < 1 || columns < 1) return cudaErrorInvalidValue;
  KOGPT2_WITH_TYPE(dtype, return forward(static_cast<const T*>(data), static_cast<const T*>(gamma),
                                         static_cast<const T*>(beta), static_cast<T*>(out), mean, inverse_std, epsilon,
                                         rows, columns, stream))
}

int kogpt2_cuda_layer_norm_backward(const void* data, const void* gamma, const void* gradient, const float* mean,
                                    const float* inverse_std, void* data_gradient, void* gamma_gradient,
                                    void* beta_gradient, int data_request, int gamma_request, int beta_request,
                                    int64_t rows, int64_t columns, int dtype, void* workspace, cudaStream_t stream) {
  using namespace kogpt2;
  if (rows < 1 || columns < 1) return cudaErrorInvalidValue;
  KOGPT2_WITH_TYPE(
      dtype,
      return backward(BackwardArrays<T>{static_cast<const T*>(data), static_cast<const T*>(gamma),
                                        static_cast<const T*>(gradient), mean, inverse_std,
                                        static_cast<T*>(data_gradient), data_request},
                      static_cast<T*>(gamma_gradient), static_cast<T*>(beta_gradient), gamma_request, beta_request,
                      rows, columns, static_cast<float*>(workspace), stream))
}

int64_t kogpt2_cuda_layer_norm_workspace(int64_t rows, int64_t columns) {
  using namespace kogpt2;
  if (columns > kWidest) return sums_workspace(rows, columns, 2) + rows * 2 * static_cast<int64_t>(sizeof(float));
  const Layout layout(rows, columns);
  return layout.blocks * 2 * columns * static_cast<int64_t>(sizeof(float));
}

}  // extern "C"
