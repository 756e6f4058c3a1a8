// Matrix products in float32, or with factors in bfloat16 and float32 sums. kernels.h says by which kernel.
#pragma once
#include <cstdint>
#include <optional>

#include "cpu_operator.h"
#include "scratch.h"

namespace kogpt2 {

// How the elements of a factor are stored: as float32, as float32 that the product rounds to bfloat16, as bfloat16.
enum class Element { kFloat, kToRound, kBfloat16 };

// A matrix as one factor of a product. One of its strides (in elements) is 1.
struct Matrix {
  const void* data;
  Element element;
  int64_t rows, columns, row_stride, column_stride;

  Matrix transposed() const { return {data, element, columns, rows, column_stride, row_stride}; }
  size_t element_bytes() const { return element == Element::kBfloat16 ? sizeof(uint16_t) : sizeof(float); }
};

// How a factor of a precision is stored, which is a choice of kernels.h for bfloat16.
Element element_of(Precision precision);

// Rows that are a multiple of 4096 bytes apart fall into the same sets of the cache, which halves oneDNN's speed with a
// right factor that is not transposed.
inline bool lies_badly(size_t row_bytes) { return row_bytes % 4096 == 0; }

// The side of its product that a factor is on, if it is not transposed. On the right its rows must not lie badly. On the
// left they have no gaps: oneDNN takes another kernel for rows with gaps, which is a quarter slower in float32 on AMD.
enum class Side { kLeft, kRight };

// float32 rows as a factor in a given precision: in place, or rounded into memory of its own, where they do not lie
// badly.
class Factor {
 public:
  // data is (rows, columns), with rows `stride` apart (0: columns).
  Factor(Precision precision, const float* data, int64_t rows, int64_t columns, int64_t stride = 0)
      : Factor(element_of(precision), data, rows, columns, stride) {}
  Factor(Element element, const float* data, int64_t rows, int64_t columns, int64_t stride = 0);

  // Room for a factor that the caller computes, row by row, through store_row().
  Factor(Precision precision, int64_t rows, int64_t columns, Side side = Side::kRight) {
    allocate(element_of(precision), rows, columns, side);
  }

  // Rounds `columns` values into row `row`, or copies them.
  void store_row(int64_t row, const float* values);

  const Matrix& matrix() const { return matrix_; }
  Matrix transposed() const { return matrix_.transposed(); }

 private:
  void allocate(Element element, int64_t rows, int64_t columns, Side side);

  std::optional<Scratch> memory_;
  Matrix matrix_;
};

// c = a b (+ bias on every row) (+ c, if `add`). a is (M, K), b is (K, N), c is (M, N) float32 with rows `c_stride`
// apart (0: N), bias is (N,) float32 or null. Uses omp_get_max_threads() threads; a caller inside a parallel region of
// its own sets that to 1.
void matmul(const Matrix& a, const Matrix& b, float* c, int64_t c_stride = 0, bool add = false,
            const float* bias = nullptr);

// out[n] = the sum of column n of data (rows, columns), added to out[n] if `add`.
void column_sums(const float* data, int64_t rows, int64_t columns, float* out, bool add);

// Rounds `count` values to bfloat16, with all threads.
void round_to_bfloat16(const float* from, uint16_t* to, int64_t count);

}  // namespace kogpt2
