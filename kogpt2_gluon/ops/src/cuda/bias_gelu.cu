// Bias, GELU and dropout in one pass; the mathematics is in launch.h. The forward pass reads data once and writes it
// once. The backward pass reads data and gradient, writes one array, and sums the bias gradient on the way.
#include "column_pass.cuh"

namespace kogpt2 {
namespace {

struct Column {
  float bias[kPack];
  Dropout dropout;
};

template <typename T>
struct Forward {
  static constexpr int kSums = 0;
  const T *data, *bias;
  T* out;
  const Dropout* dropout;

  __device__ __forceinline__ Column begin(int64_t column, int count, bool vector) const {
    Column constants;
    load(bias + column, count, vector, constants.bias);
    constants.dropout = read_dropout(dropout);
    return constants;
  }

  __device__ __forceinline__ void row(const Column& constants, const Matrix& matrix, int64_t row, int64_t column,
                                      int count, float (&)[1][kPack]) const {
    const int64_t at = row * matrix.columns + column;
    float values[kPack], mask[kPack];
    load(data + at, count, matrix.vector, values);
    load_mask(constants.dropout, matrix, row, column, mask);
#pragma unroll
    for (int k = 0; k < kPack; ++k) values[k] = mask[k] * gelu(values[k] + constants.bias[k]);
    store(values, out + at, count, matrix.vector);
  }
};

template <typename T>
struct Backward {
  static constexpr int kSums = 1;
  const T *data, *bias, *gradient;
  T* data_gradient;
  int data_request;
  const Dropout* dropout;

  __device__ __forceinline__ Column begin(int64_t column, int count, bool vector) const {
    return Forward<T>{data, bias, nullptr, dropout}.begin(column, count, vector);
  }

  __device__ __forceinline__ void row(const Column& constants, const Matrix& matrix, int64_t row, int64_t column,
                                      int count, float (&sums)[kSums][kPack]) const {
    const int64_t at = row * matrix.columns + column;
    float values[kPack], from[kPack], mask[kPack];
    load(data + at, count, matrix.vector, values);
    load(gradient + at, count, matrix.vector, from);
    load_mask(constants.dropout, matrix, row, column, mask);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      values[k] = mask[k] * from[k] * gelu_derivative(values[k] + constants.bias[k]);
      sums[0][k] += values[k];
    }
    store_gradient(values, data_gradient + at, data_request, count, matrix.vector);
  }
};

template <typename T>
int forward(const T* data, const T* bias, T* out, int64_t rows, int64_t columns, const Dropout* dropout,
            cudaStream_t stream) {
  const Matrix matrix = make_matrix(rows, columns, data, bias, out);
  return start_column_pass(Forward<T>{data, bias, out, dropout}, matrix, nullptr, stream);
}

template <typename T>
int backward(const T* data, const T* bias, const T* gradient, T* data_gradient, T* bias_gradient, int data_request,
             int bias_request, int64_t rows, int64_t columns, const Dropout* dropout, float* workspace,
             cudaStream_t stream) {
  const Matrix matrix = make_matrix(rows, columns, data, bias, gradient, data_gradient);
  const Backward<T> body{data, bias, gradient, data_gradient, data_request, dropout};
  return start_backward<T>(body, matrix, workspace, {bias_gradient}, {bias_request}, stream);
}

}  // namespace
}  // namespace kogpt2

extern "C" {

int kogpt2_cuda_bias_gelu_forward(const void* data, const void* bias, void* out, int64_t rows, int64_t columns,
                                  int dtype, const void* dropout, cudaStream_t stream) {
  using namespace kogpt2;
  if (rows < 1 || columns < 1) return cudaErrorInvalidValue;
  KOGPT2_WITH_TYPE(dtype, return forward(static_cast<const T*>(data), static_cast<const T*>(bias), static_cast<T*>(out),
                                         rows, columns, static_cast<const Dropout*>(dropout), stream))
}

int kogpt2_cuda_bias_gelu_backward(const void* data, const void* bias, const void* gradient, void* data_gradient,
                                   void* bias_gradient, int data_request, int bias_request, int64_t rows,
                                   int64_t columns, int dtype, const void* dropout, void* workspace,
                                   cudaStream_t stream) {
  using namespace kogpt2;
  if (rows < 1 || columns < 1) return cudaErrorInvalidValue;
  KOGPT2_WITH_TYPE(dtype, return backward(static_cast<const T*>(data), static_cast<const T*>(bias),
                                          static_cast<const T*>(gradient), static_cast<T*>(data_gradient),
                                          static_cast<T*>(bias_gradient), data_request, bias_request, rows, columns,
                                          static_cast<const Dropout*>(dropout), static_cast<float*>(workspace), stream))
}

int64_t kogpt2_cuda_bias_gelu_workspace(int64_t rows, int64_t columns) {
  return kogpt2::sums_workspace(rows, columns, 1);
}

}  // extern "C"
