// Matrix products by oneDNN, in float32 or with bfloat16 operands and float32 sums.
#pragma once
#include <cstdint>
#include <optional>

#include "operator.h"
#include "scratch.h"

namespace kogpt2 {

// A matrix as one factor of a product: float32 or bfloat16, one of its strides (in elements) being 1.
struct Matrix {
  const void* data;
  bool is_bfloat16;
  int64_t rows, columns, row_stride, column_stride;

  Matrix transposed() const { return {data, is_bfloat16, columns, rows, column_stride, row_stride}; }
};

// float32 rows as a factor in the wanted precision: as they are, or rounded into memory of its own. In that memory no two
// rows are a multiple of 4096 bytes apart: such rows fall into the same sets of the cache, which halves oneDNN's speed
// with a right factor that is not transposed.
class Factor {
 public:
  // data: (rows, columns), rows `stride` apart (0: columns). `as_right`: the matrix will be such a right factor, and is
  // copied if its rows lie badly.
  Factor(Precision precision, const float* data, int64_t rows, int64_t columns, int64_t stride = 0,
         bool as_right = false);

  // Room for a factor that the caller computes himself, row by row, through store_row().
  Factor(Precision precision, int64_t rows, int64_t columns);

  // Rounds `columns` values into row `row`, or copies them.
  void store_row(int64_t row, const float* values);

  const Matrix& matrix() const { return matrix_; }
  Matrix transposed() const { return matrix_.transposed(); }

 private:
  void allocate(Precision precision, int64_t rows, int64_t columns);

  std::optional<Scratch> memory_;
  Matrix matrix_;
};

// c = a b (+ bias on every row) (+ c, if `add`). a: (M, K), b: (K, N), c: (M, N) float32 with rows `c_stride` apart
// (0: N), bias: (N,) float32 or null. Uses the threads that omp_get_max_threads() tells: 1, where the caller has set so
// inside a parallel region of his own.
void matmul(const Matrix& a, const Matrix& b, float* c, int64_t c_stride = 0, bool add = false,
            const float* bias = nullptr);

// A matrix that is a right factor again and again, in bfloat16 and in whatever order oneDNN reads fastest on this CPU (for
// AMX, tiles). A plain one is brought into that order anew with every product, which for a few rows on the left takes
// longer than the product itself.
size_t tiled_bytes(int64_t rows, int64_t columns);

// `b` (rows, columns), of bfloat16, as such: `tiled_bytes` at `to`.
void tile(const Matrix& b, void* to);

// c = a b, a: (M, K) bfloat16, b: (K, N) as tile() left it, c: (M, N) float32.
void matmul_tiled(const Matrix& a, const void* b, int64_t N, float* c);

// out[n] (+)= the sum of column n. data: (rows, columns).
void column_sums(const float* data, int64_t rows, int64_t columns, float* out, bool add);

// Rounds `count` values to bfloat16, with all threads.
void round_to_bfloat16(const float* from, uint16_t* to, int64_t count);

}  // namespace kogpt2
