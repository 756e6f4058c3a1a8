// Causal softmax with scale and dropout; the mathematics is in launch.h. A warp works on a row. Only the keys that a
// query sees are read, half of the matrix on average. The backward pass computes the probabilities again from the
// scores and log_sum.
#include "row_packs.cuh"

namespace kogpt2 {
namespace {

// What belongs to a row: the keys that its query sees, and its mask.
struct Row {
  int64_t row, seen;
  Dropout dropout;

  __device__ __forceinline__ Row(const Matrix& matrix, int64_t queries, const Dropout* from)
      : row(warp_row()), seen(0) {
    if (row >= matrix.rows) return;
    seen = matrix.columns - queries + row % queries + 1;
    dropout = read_dropout(from);
  }

  // The number of elements of the pack at `column` that the query sees.
  __device__ __forceinline__ int count(int64_t column) const {
    return seen - column < kPack ? static_cast<int>(seen - column) : kPack;
  }

  // If `vector` holds, a pack that is seen in part is whole in the array: it is read as a whole and then cut.
  template <typename T>
  __device__ __forceinline__ void load_seen(const T* from, const Matrix& matrix, int64_t column,
                                            float (&to)[kPack]) const {
    const int visible = count(column);
    load(from + column, visible, matrix.vector, to);
#pragma unroll
    for (int k = 0; k < kPack; ++k) to[k] = k < visible ? to[k] : 0.0f;
  }
};

template <typename T>
__global__ void __launch_bounds__(kWarp * kWarpsPerBlock)
    forward_kernel(const T* scores, T* out, float* log_sum, const float scale, const int64_t queries,
                   const Matrix matrix, const Dropout* dropout) {
  const Row row(matrix, queries, dropout);
  if (row.row >= matrix.rows) return;
  const T* const from = scores + row.row * matrix.columns;
  float cached[kCached][kPack];

  // After the last key that is seen the scores are -infinity, whose exponential is 0.
  const auto load_scaled = [&](int64_t column, float(&values)[kPack]) {
    row.load_seen(from, matrix, column, values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) values[k] = k < row.count(column) ? values[k] * scale : -INFINITY;
  };
  float highest = -INFINITY;
  for_packs(row.seen, [&](int64_t column, int slot) {
    float fresh[kPack];
    float(&values)[kPack] = slot < 0 ? fresh : cached[slot];
    load_scaled(column, values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) highest = fmaxf(highest, values[k]);
  });
  highest = warp_max(highest);

  float sum = 0.0f;
  for_packs(row.seen, [&](int64_t column, int slot) {
    float fresh[kPack];
    float(&values)[kPack] = slot < 0 ? fresh : cached[slot];
    if (slot < 0) load_scaled(column, values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      values[k] = exponential(values[k] - highest);
      sum += values[k];
    }
  });
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) log_sum[row.row] = highest + logf(sum);

  const float factor = 1.0f / sum;
  for_packs(matrix.columns, [&](int64_t column, int slot) {
    float fresh[kPack], mask[kPack];
    float(&values)[kPack] = slot < 0 ? fresh : cached[slot];
    if (column >= row.seen) {
#pragma unroll
      for (int k = 0; k < kPack; ++k) values[k] = 0.0f;
    } else {
      if (slot < 0) {
        load_scaled(column, values);
#pragma unroll
        for (int k = 0; k < kPack; ++k) values[k] = exponential(values[k] - highest);
      }
      load_mask(row.dropout, matrix, row.row, column, mask);
#pragma unroll
      for (int k = 0; k < kPack; ++k) values[k] *= factor * mask[k];
    }
    store(values, out + row.row * matrix.columns + column, matrix.count(column), matrix.vector);
  });
}

template <typename T>
__global__ void __launch_bounds__(kWarp * kWarpsPerBlock)
    backward_kernel(const T* scores, const T* gradient, const float* log_sum, T* scores_gradient, const int request,
                    const float scale, const int64_t queries, const Matrix matrix, const Dropout* dropout) {
  const Row row(matrix, queries, dropout);
  if (row.row >= matrix.rows) return;
  const int64_t begin = row.row * matrix.columns;
  const float row_log_sum = log_sum[row.row];
  float cached_p[kCached][kPack], cached_d[kCached][kPack];

  // p and d of the pack at `column`; both are 0 after the last key that is seen.
  const auto load_pair = [&](int64_t column, float(&p)[kPack], float(&d)[kPack]) {
    float mask[kPack];
    row.load_seen(scores + begin, matrix, column, p);
    row.load_seen(gradient + begin, matrix, column, d);
    load_mask(row.dropout, matrix, row.row, column, mask);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      p[k] = k < row.count(column) ? exponential(p[k] * scale - row_log_sum) : 0.0f;
      d[k] *= mask[k];
    }
  };
  float sum = 0.0f;
  for_packs(row.seen, [&](int64_t column, int slot) {
    float fresh_p[kPack], fresh_d[kPack];
    float(&p)[kPack] = slot < 0 ? fresh_p : cached_p[slot];
    float(&d)[kPack] = slot < 0 ? fresh_d : cached_d[slot];
    load_pair(column, p, d);
#pragma unroll
    for (int k = 0; k < kPack; ++k) sum += p[k] * d[k];
  });
  sum = warp_sum(sum);

  for_packs(matrix.columns, [&](int64_t column, int slot) {
    float fresh_p[kPack], fresh_d[kPack];
    float(&p)[kPack] = slot < 0 ? fresh_p : cached_p[slot];
    float(&d)[kPack] = slot < 0 ? fresh_d : cached_d[slot];
    if (column >= row.seen) {
#pragma unroll
      for (int k = 0; k < kPack; ++k) p[k] = 0.0f;
    } else {
      if (slot < 0) load_pair(column, p, d);
#pragma unroll
      for (int k = 0; k < kPack; ++k) p[k] = softmax_gradient(p[k], d[k], sum, scale);
    }
    store_gradient(p, scores_gradient + begin + column, request, matrix.count(column), matrix.vector);
  });
}

template <typename T>
int forward(const T* scores, T* out, float* log_sum, float scale, int64_t batch, int64_t queries, int64_t keys,
            const Dropout* dropout, cudaStream_t stream) {
  const Matrix matrix = make_matrix(batch * queries, keys, scores, out);
  return start_rows(forward_kernel<T>, matrix.rows, stream, scores, out, log_sum, scale, queries, matrix, dropout);
}

template <typename T>
int backward(const T* scores, const T* gradient, const float* log_sum, T* scores_gradient, int request, float scale,
             int64_t batch, int64_t queries, int64_t keys, const Dropout* dropout, cudaStream_t stream) {
  const Matrix matrix = make_matrix(batch * queries, keys, scores, gradient, scores_gradient);
  return start_rows(backward_kernel<T>, matrix.rows, stream, scores, gradient, log_sum, scores_gradient, request, scale,
                    queries, matrix, dropout);
}

bool fits(int64_t batch, int64_t queries, int64_t keys) { return batch >= 1 && queries >= 1 && keys >= queries; }

}  // namespace
}  // namespace kogpt2

extern "C" {

int kogpt2_cuda_causal_softmax_forward(const void* scores, void* out, float* log_sum, float scale, int64_t batch,
                                       int64_t queries, int64_t keys, int dtype, const void* dropout,
                                       cudaStream_t stream) {
  using namespace kogpt2;
  if (!fits(batch, queries, keys)) return cudaErrorInvalidValue;
  KOGPT2_WITH_TYPE(dtype, return forward(static_cast<const T*>(scores), static_cast<T*>(out), log_sum, scale, batch,
                                         queries, keys, static_cast<const Dropout*>(dropout), stream))
}

int kogpt2_cuda_causal_softmax_backward(const void* scores, const void* gradient, const float* log_sum,
                                        void* scores_gradient, int scores_request, float scale, int64_t batch,
                                        int64_t queries, int64_t keys, int dtype, const void* dropout,
                                        cudaStream_t stream) {
  using namespace kogpt2;
  if (!fits(batch, queries, keys)) return cudaErrorInvalidValue;
  if (scores_request == KOGPT2_NULL) return cudaSuccess;
  KOGPT2_WITH_TYPE(dtype, return backward(static_cast<const T*>(scores), static_cast<const T*>(gradient), log_sum,
                                          static_cast<T*>(scores_gradient), scores_request, scale, batch, queries, keys,
                                          static_cast<const Dropout*>(dropout), stream))
}

}  // extern "C"
