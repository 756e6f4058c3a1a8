// The end of a residual branch, bias, dropout and addition in one pass: the mathematics is in launch.h.
#include "column_pass.cuh"

namespace kogpt2 {
namespace {

template <typename T>
struct Forward {
  static constexpr int kSums = 0;
  const T *data, *bias, *residual;
  T* out;
  const Dropout* dropout;

  struct Column {
    float bias[kPack];
    Dropout dropout;
  };

  __device__ __forceinline__ Column begin(int64_t column, int count, bool vector) const {
    Column constants;
    load(bias + column, count, vector, constants.bias);
    constants.dropout = read_dropout(dropout);
    return constants;
  }

  __device__ __forceinline__ void row(const Column& constants, const Matrix& matrix, int64_t row, int64_t column,
                                      int count, float (&)[1][kPack]) const {
    const int64_t at = row * matrix.columns + column;
    float values[kPack], before[kPack], mask[kPack];
    load(data + at, count, matrix.vector, values);
    load(residual + at, count, matrix.vector, before);
    load_mask(constants.dropout, matrix, row, column, mask);
#pragma unroll
    for (int k = 0; k < kPack; ++k) values[k] = before[k] + mask[k] * (values[k] + constants.bias[k]);
    store(values, out + at, count, matrix.vector);
  }
};

template <typename T>
struct Backward {
  static constexpr int kSums = 1;
  const T* gradient;
  T *data_gradient, *residual_gradient;
  int data_request, residual_request;
  const Dropout* dropout;

  __device__ __forceinline__ Dropout begin(int64_t, int, bool) const { return read_dropout(dropout); }

  __device__ __forceinline__ void row(const Dropout& drop, const Matrix& matrix, int64_t row, int64_t column, int count,
                                      float (&sums)[kSums][kPack]) const {
    const int64_t at = row * matrix.columns + column;
    float values[kPack], masked[kPack], mask[kPack];
    load(gradient + at, count, matrix.vector, values);
    load_mask(drop, matrix, row, column, mask);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      masked[k] = mask[k] * values[k];
      sums[0][k] += masked[k];
    }
    store_gradient(masked, data_gradient + at, data_request, count, matrix.vector);
    store_gradient(values, residual_gradient + at, residual_request, count, matrix.vector);
  }
};

template <typename T>
int forward(const T* data, const T* bias, const T* residual, T* out, int64_t rows, int64_t columns,
            const Dropout* dropout, cudaStream_t stream) {
  const Matrix matrix = make_matrix(rows, columns, data, bias, residual, out);
  return start_column_pass(Forward<T>{data, bias, residual, out, dropout}, matrix, nullptr, stream);
}

template <typename T>
int backward(const T* gradient, T* data_gradient, T* bias_gradient, T* residual_gradient, int data_request,
             int bias_request, int residual_request, int64_t rows, int64_t columns, const Dropout* dropout,
             float* workspace, cudaStream_t stream) {
  const Matrix matrix = make_matrix(rows, columns, gradient, data_gradient, residual_gradient);
  const Backward<T> body{gradient, data_gradient, residual_gradient, data_request, residual_request, dropout};
  return start_backward<T>(body, matrix, workspace, {bias_gradient}, {bias_request}, stream);
}

}  // namespace
}  // namespace kogpt2

extern "C" {

int kogpt2_cuda_bias_dropout_residual_forward(const void* data, const void* bias, const void* residual, void* out,
                                              int64_t rows, int64_t columns, int dtype, const void* dropout,
                                              cudaStream_t stream) {
  using namespace kogpt2;
  if (rows < 1 || columns < 1) return cudaErrorInvalidValue;
  KOGPT2_WITH_TYPE(dtype, return forward(static_cast<const T*>(data), static_cast<const T*>(bias),
                                         static_cast<const T*>(residual), static_cast<T*>(out), rows, columns,
                                         static_cast<const Dropout*>(dropout), stream))
}

int kogpt2_cuda_bias_dropout_residual_backward(const void* gradient, void* data_gradient, void* bias_gradient,
                                               void* residual_gradient, int data_request, int bias_request,
                                               int residual_request, int64_t rows, int64_t columns, int dtype,
                                               const void* dropout, void* workspace, cudaStream_t stream) {
  using namespace kogpt2;
  if (rows < 1 || columns < 1) return cudaErrorInvalidValue;
  KOGPT2_WITH_TYPE(dtype, return backward(static_cast<const T*>(gradient), static_cast<T*>(data_gradient),
                                          static_cast<T*>(bias_gradient), static_cast<T*>(residual_gradient),
                                          data_request, bias_request, residual_request, rows, columns,
                                          static_cast<const Dropout*>(dropout), static_cast<float*>(workspace), stream))
}

int64_t kogpt2_cuda_bias_dropout_residual_workspace(int64_t rows, int64_t columns) {
  return kogpt2::sums_workspace(rows, columns, 1);
}

}  // extern "C"
