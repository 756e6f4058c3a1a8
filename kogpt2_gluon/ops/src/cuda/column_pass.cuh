// One pass over a matrix that also sums its columns, for the bias operators.
//
// A block of 32 x 8 threads takes a tile of 256 columns and a run of rows. A thread keeps to its 8 columns, so that
// what belongs to a column (bias, gamma, running sums) stays in registers. The sums of a block go to `partials` (runs,
// sums, columns), and finish_sums adds the runs up in their order: two stages instead of atomics, whose order would
// change from one call to the next.
#pragma once
#include "pack.cuh"

namespace kogpt2 {

constexpr int kTileColumns = kWarp * kPack;
constexpr int kLines = 8;              // rows that a block works on at a time
constexpr int64_t kWantedBlocks = 2048;
constexpr int64_t kLeastRows = 4 * kLines;
constexpr int64_t kMostRuns = 65535;  // a grid's limit

inline int64_t run_length(const Matrix& matrix) {
  const int64_t tiles = ceil_divide(matrix.columns, kTileColumns);
  const int64_t wanted = ceil_divide(matrix.rows * tiles, kWantedBlocks);
  const int64_t least = wanted > kLeastRows ? wanted : kLeastRows;
  return matrix.rows > least * kMostRuns ? ceil_divide(matrix.rows, kMostRuns) : least;
}

inline int64_t sums_workspace(int64_t rows, int64_t columns, int sums) {
  const Matrix matrix{rows, columns, false};
  return ceil_divide(rows, run_length(matrix)) * sums * columns * static_cast<int64_t>(sizeof(float));
}

// A Body has kSums; Constants begin(column, count, vector); and
// row(constants, matrix, row, column, count, sums), which works on one pack.
template <typename Body>
__global__ void __launch_bounds__(kWarp * kLines)
    column_pass(const Body body, const Matrix matrix, const int64_t rows_per_block, float* partials) {
  constexpr int kArrays = Body::kSums > 0 ? Body::kSums : 1;
  float sums[kArrays][kPack] = {};
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x) * kPack;
  if (column < matrix.columns) {
    const int count = matrix.count(column);
    const auto constants = body.begin(column, count, matrix.vector);
    const int64_t first = static_cast<int64_t>(blockIdx.y) * rows_per_block;
    const int64_t end = first + rows_per_block < matrix.rows ? first + rows_per_block : matrix.rows;
    for (int64_t row = first + threadIdx.y; row < end; row += kLines) {
      body.row(constants, matrix, row, column, count, sums);
    }
  }
  if constexpr (Body::kSums > 0) {
    if (partials == nullptr) return;  // for the whole grid
    __shared__ float lines[kLines][kTileColumns];
    const int thread = threadIdx.y * kWarp + threadIdx.x;
    const int64_t mine = static_cast<int64_t>(blockIdx.x) * kTileColumns + thread;
    for (int sum = 0; sum < Body::kSums; ++sum) {
#pragma unroll
      for (int k = 0; k < kPack; ++k) lines[threadIdx.y][threadIdx.x * kPack + k] = sums[sum][k];
      __syncthreads();
      if (mine < matrix.columns) {
        float total = 0.0f;
#pragma unroll
        for (int line = 0; line < kLines; ++line) total += lines[line][thread];
        partials[(static_cast<int64_t>(blockIdx.y) * Body::kSums + sum) * matrix.columns + mine] = total;
      }
      __syncthreads();
    }
  }
}

template <typename Body>
int start_column_pass(const Body& body, const Matrix& matrix, float* partials, cudaStream_t stream) {
  const int64_t rows = run_length(matrix);
  const dim3 grid(static_cast<unsigned>(ceil_divide(matrix.columns, kTileColumns)),
                  static_cast<unsigned>(ceil_divide(matrix.rows, rows)));
  return start(column_pass<Body>, grid, dim3(kWarp, kLines), stream, body, matrix, rows, partials);
}

// to[column] = the sum of partials[run * stride + column] over the runs, as requested. Each of a block's 32 lines adds
// every 32nd run, and the lines are added in their order.
template <typename T>
__global__ void __launch_bounds__(kWarp * kWarp)
    finish_sums(const float* partials, const int64_t runs, const int64_t stride, const int64_t columns, T* to,
                const int request) {
  __shared__ float lines[kWarp][kWarp];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  float total = 0.0f;
  if (column < columns) {
#pragma unroll 4
    for (int64_t run = threadIdx.y; run < runs; run += kWarp) total += partials[run * stride + column];
  }
  lines[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y > 0 || column >= columns) return;
  total = request == KOGPT2_ADD ? to_float(to[column]) : 0.0f;
#pragma unroll
  for (int line = 0; line < kWarp; ++line) total += lines[line][threadIdx.x];
  from_float(total, to[column]);
}

template <typename T>
int start_finish_sums(const float* partials, int64_t runs, int64_t stride, int64_t columns, T* to, int request,
                      cudaStream_t stream) {
  if (request == KOGPT2_NULL) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(ceil_divide(columns, kWarp)));
  return start(finish_sums<T>, grid, dim3(kWarp, kWarp), stream, partials, runs, stride, columns, to, request);
}

// The pass and, for each array of sums, the second stage into to[i] with requests[i].
template <typename T, typename Body>
int start_backward(const Body& body, const Matrix& matrix, float* partials, T* const (&to)[Body::kSums],
                   const int (&requests)[Body::kSums], cudaStream_t stream) {
  bool wanted = false;
  for (int request : requests) wanted |= request != KOGPT2_NULL;
  int error = start_column_pass(body, matrix, wanted ? partials : nullptr, stream);
  const int64_t runs = ceil_divide(matrix.rows, run_length(matrix));
  for (int sum = 0; sum < Body::kSums && error == cudaSuccess; ++sum) {
    error = start_finish_sums(partials + sum * matrix.columns, runs, Body::kSums * matrix.columns, matrix.columns,
                              to[sum], requests[sum], stream);
  }
  return error;
}

}  // namespace kogpt2
