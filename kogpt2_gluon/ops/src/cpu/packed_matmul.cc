#include "packed_matmul.h"

#include <algorithm>

#include "vectors.h"

// The way of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): both factors are copied
// into slivers, in the order in which the innermost loop reads them, and that loop keeps a tile of the product in
// registers. Rounding to bfloat16 happens while packing, where it costs nothing. Slivers are dealt out one by one
// (schedule dynamic): a thread that the machine's other work holds up keeps nobody waiting.
namespace kogpt2 {
namespace {

// A tile of the product: its sums, a row of the right factor and a broadcast number fill the vector registers.
constexpr int kTileRows = kLanes == 16 ? 14 : kLanes == 8 ? 6 : 4;
constexpr int kTileColumns = 2 * kLanes;
static_assert(kTileRows <= kLanes, "a row of a sliver of rows is at most one vector");

// How much of the sum is taken at a time: a sliver of the right factor is then 32 KB with AVX-512, which the nearest
// cache holds. 192 and 384 were slower.
constexpr int64_t kDepth = 256;

// Rows, or columns, of the shared factor that are packed at a time: about 1 MB, in the second nearest cache.
constexpr int64_t kSharedRows = 84 * kTileRows;
constexpr int64_t kSharedColumns = 768;

// ---- packing --------------------------------------------------------------------------------------------------------

// Reads a factor's elements as float32.
struct Plain {
  using Element = float;
  static KOGPT2_INLINE Vector vector(const float* from) { return load(from); }
  static KOGPT2_INLINE float one(float value) { return value; }
};

struct ToRound {
  using Element = float;
  static KOGPT2_INLINE Vector vector(const float* from) { return rounded_to_bfloat16(load(from)); }
  static KOGPT2_INLINE float one(float value) { return float_of(static_cast<uint32_t>(to_bfloat16(value)) << 16); }
};

struct Bfloat16 {
  using Element = uint16_t;
  static KOGPT2_INLINE Vector vector(const uint16_t* from) {
    VectorHalf halves;
    std::memcpy(&halves, from, sizeof halves);
    const VectorBits bits = __builtin_convertvector(halves, VectorBits) << 16;
    Vector value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  static KOGPT2_INLINE float one(uint16_t value) { return float_of(static_cast<uint32_t>(value) << 16); }
};

// A sliver is (depth, kWidth): to[k * kWidth + i] = from(i, k) for i < count, and 0 up to kWidth. Slivers lie kSliver
// floats apart, since one may be followed by one vector of anything.
template <int kWidth>
constexpr int64_t kSliver = kDepth * kWidth + kLanes;

// At most this many slivers are packed at a time. The rows of a source are then read in whole lines of the cache: a
// sliver of 14 numbers takes a part of each line, which may be gone when the next sliver asks for the rest.
template <int kWidth>
constexpr int64_t kGroup = kWidth % 16 ? 4 : 1;

// Each of the `count` lines of the source has its `depth` elements next to each other.
template <int kWidth, typename Read>
void pack_lines(const typename Read::Element* from, int64_t stride, int64_t count, int64_t depth, float* to) {
  int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) {
#pragma GCC unroll 4
    for (int first = 0; first < kWidth; first += kLanes) {
      Vector square[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        const bool there = first + i < kWidth && first + i < count;
        square[i] = there ? Read::vector(from + (first + i) * stride + k) : Vector{};
      }
      transpose(square);
      // Where kWidth is no whole number of vectors, the next row overwrites what is too much of this one.
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(square[i], to + (k + i) * kWidth + first);
    }
  }
  for (; k < depth; ++k) {
    for (int i = 0; i < kWidth; ++i) to[k * kWidth + i] = i < count ? Read::one(from[i * stride + k]) : 0.0f;
  }
}

// Each of the `depth` rows of the source has the elements of kSlivers slivers next to each other, `count` of them.
template <int kWidth, int kSlivers, typename Read>
void pack_rows(const typename Read::Element* from, int64_t stride, int64_t count, int64_t depth, float* to) {
  // Whole vectors may read past the end of a row, so the last row is read one by one.
  const int64_t whole = count == kSlivers * kWidth ? depth - (kWidth % kLanes != 0) : 0;
  for (int64_t k = 0; k < whole; ++k) {
#pragma GCC unroll 4
    for (int sliver = 0; sliver < kSlivers; ++sliver) {
#pragma GCC unroll 4
      for (int i = 0; i < kWidth; i += kLanes) {
        store(Read::vector(from + k * stride + sliver * kWidth + i), to + sliver * kSliver<kWidth> + k * kWidth + i);
      }
    }
  }
  for (int64_t k = whole; k < depth; ++k) {
    for (int i = 0; i < kSlivers * kWidth; ++i) {
      to[i / kWidth * kSliver<kWidth> + k * kWidth + i % kWidth] = i < count ? Read::one(from[k * stride + i]) : 0.0f;
    }
  }
}

template <int kWidth, typename Read>
void pack_elements(const Matrix& lines, int64_t first, int64_t count, int64_t begin, int64_t depth, float* to) {
  const auto* const from = static_cast<const typename Read::Element*>(lines.data) + first * lines.row_stride +
                           begin * lines.column_stride;
  if (lines.column_stride != 1 && count == kGroup<kWidth> * kWidth) {
    return pack_rows<kWidth, kGroup<kWidth>, Read>(from, lines.column_stride, count, depth, to);
  }
  for (int64_t line = 0; line < count; line += kWidth, to += kSliver<kWidth>) {
    const int64_t here = std::min<int64_t>(kWidth, count - line);
    if (lines.column_stride == 1) {
      pack_lines<kWidth, Read>(from + line * lines.row_stride, lines.row_stride, here, depth, to);
    } else {
      pack_rows<kWidth, 1, Read>(from + line, lines.column_stride, here, depth, to);
    }
  }
}

// Packs rows first .. first + count - 1 of `lines`, elements begin .. begin + depth - 1, into slivers of kWidth rows.
template <int kWidth>
void pack(const Matrix& lines, int64_t first, int64_t count, int64_t begin, int64_t depth, float* to) {
  switch (lines.element) {
    case Element::kFloat: return pack_elements<kWidth, Plain>(lines, first, count, begin, depth, to);
    case Element::kToRound: return pack_elements<kWidth, ToRound>(lines, first, count, begin, depth, to);
    case Element::kBfloat16: return pack_elements<kWidth, Bfloat16>(lines, first, count, begin, depth, to);
  }
}

// ---- a tile of the product ------------------------------------------------------------------------------------------

// Where a tile goes, and what is added to it. bias is null, or belongs to the tile's first column.
struct Target {
  float* c;
  int64_t stride;
  bool add;
  const float* bias;
};

// The product of slivers of kRows rows and of kTileColumns columns.
template <int kRows>
void multiply_tile(const float* left, const float* right, int64_t depth, const Target& to) {
  Vector sums[kRows][2] = {};
  for (int r = 0; r < kRows; ++r) {
    __builtin_prefetch(to.c + r * to.stride, 1);
    __builtin_prefetch(to.c + r * to.stride + kLanes, 1);
  }
#pragma GCC unroll 2
  for (int64_t k = 0; k < depth; ++k, left += kTileRows, right += kTileColumns) {
    const Vector first = load(right), second = load(right + kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      sums[r][0] += left[r] * first;
      sums[r][1] += left[r] * second;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      float* const place = to.c + r * to.stride + half * kLanes;
      Vector sum = sums[r][half];
      if (to.bias) sum += load(to.bias + half * kLanes);
      if (to.add) sum += load(place);
      store(sum, place);
    }
  }
}

using MultiplyTile = void (*)(const float*, const float*, int64_t, const Target&);

template <int... kCounts>
MultiplyTile tile_of_rows(int64_t rows, std::integer_sequence<int, kCounts...>) {
  static constexpr MultiplyTile kFunctions[] = {multiply_tile<kCounts + 1>...};
  return kFunctions[rows - 1];
}

void multiply(const float* left, int64_t rows, const float* right, int64_t columns, int64_t depth, const Target& to) {
  const MultiplyTile function = tile_of_rows(rows, std::make_integer_sequence<int, kTileRows>());
  if (columns == kTileColumns) return function(left, right, depth, to);
  float tile[kTileRows * kTileColumns];
  function(left, right, depth, {tile, kTileColumns, false, nullptr});
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < columns; ++i) {
      float& place = to.c[r * to.stride + i];
      place = tile[r * kTileColumns + i] + (to.bias ? to.bias[i] : 0.0f) + (to.add ? place : 0.0f);
    }
  }
}

// ---- the whole product ----------------------------------------------------------------------------------------------

struct Call {
  Matrix a, columns_of_b;  // columns_of_b is b transposed: a row of it is a column of b
  float* c;
  int64_t c_stride;
  bool add;
  const float* bias;

  int64_t M() const { return a.rows; }
  int64_t N() const { return columns_of_b.rows; }
  int64_t K() const { return a.columns; }

  // The tile at (row, column), which gets its sums of k = begin, begin + 1, ...
  void tile(int64_t row, int64_t column, const float* left, const float* right, int64_t begin, int64_t depth) const {
    const Target to = {c + row * c_stride + column, c_stride, add || begin > 0,
                       bias && begin == 0 ? bias + column : nullptr};
    multiply(left, std::min<int64_t>(kTileRows, M() - row), right, std::min<int64_t>(kTileColumns, N() - column), depth,
             to);
  }
};

// Lines first .. end - 1 of the shared factor, elements begin .. begin + depth - 1: what is packed at a time.
struct Part {
  int64_t begin, depth, first, end;
};

std::vector<Part> parts_of(int64_t lines, int64_t lines_at_once, int64_t K) {
  std::vector<Part> parts;
  for (int64_t begin = 0; begin < K; begin += kDepth) {
    for (int64_t first = 0; first < lines; first += lines_at_once) {
      parts.push_back({begin, std::min(kDepth, K - begin), first, std::min(first + lines_at_once, lines)});
    }
  }
  return parts;
}

// How many lines of a factor a thread packs at a time. One sliver, if each line's elements lie next to each other, or if
// there would be too few groups to share out evenly.
template <int kWidth>
int64_t lines_of_group(const Matrix& lines) {
  const int64_t slivers = (lines.rows + kWidth - 1) / kWidth, for_each_thread = slivers / omp_get_max_threads();
  return lines.column_stride == 1 ? kWidth : kWidth * std::clamp<int64_t>(for_each_thread / 6, 1, kGroup<kWidth>);
}

// Calls tile(shared line, own line, shared sliver, own sliver, begin, depth) for all tiles of the product. `shared` and
// `own` have a line for each row of the left factor, or for each column of the right one. A thread whose share of a part
// is done packs some of the next part, so that the threads wait for each other once a part.
template <int kSharedWidth, int kOwnWidth, typename Tile>
void multiply_parts(const Matrix& shared, int64_t lines_at_once, const Matrix& own, const Tile& tile) {
  const std::vector<Part> parts = parts_of(shared.rows, lines_at_once, shared.columns);
  const int64_t num_parts = static_cast<int64_t>(parts.size());
  const int64_t part_size = std::min(lines_at_once, shared.rows + kSharedWidth) / kSharedWidth * kSliver<kSharedWidth>;
  Buffer<float> memory(part_size * std::min<int64_t>(2, num_parts));
  float* const slivers = memory.data();
  const int64_t shared_group = lines_of_group<kSharedWidth>(shared), own_group = lines_of_group<kOwnWidth>(own);
#pragma omp parallel
  {
    alignas(64) float own_slivers[kGroup<kOwnWidth> * kSliver<kOwnWidth>];
    for (int64_t p = 0; p <= num_parts; ++p) {  // part p is packed while part p - 1 is multiplied
      if (p > 0) {
        const Part part = parts[p - 1];
        const float* const packed = slivers + (p - 1) % 2 * part_size;
#pragma omp for schedule(dynamic) nowait
        for (int64_t first = 0; first < own.rows; first += own_group) {
          const int64_t end = std::min(first + own_group, own.rows);
          pack<kOwnWidth>(own, first, end - first, part.begin, part.depth, own_slivers);
          for (int64_t line = first; line < end; line += kOwnWidth) {
            const float* const own_sliver = own_slivers + (line - first) / kOwnWidth * kSliver<kOwnWidth>;
            for (int64_t each = part.first; each < part.end; each += kSharedWidth) {
              tile(each, line, packed + (each - part.first) / kSharedWidth * kSliver<kSharedWidth>, own_sliver,
                   part.begin, part.depth);
            }
          }
        }
      }
      if (p < num_parts) {
        const Part part = parts[p];
        float* const to = slivers + p % 2 * part_size;
#pragma omp for schedule(dynamic) nowait
        for (int64_t first = part.first; first < part.end; first += shared_group) {
          pack<kSharedWidth>(shared, first, std::min(shared_group, part.end - first), part.begin, part.depth,
                             to + (first - part.first) / kSharedWidth * kSliver<kSharedWidth>);
        }
      }
#pragma omp barrier
    }
  }
}

}  // namespace

void packed_matmul(Shared shared, const Matrix& a, const Matrix& b, float* c, int64_t c_stride, bool add,
                   const float* bias) {
  const Call call = {a, b.transposed(), c, c_stride, add, bias};
  if (shared == Shared::kLeft) {
    multiply_parts<kTileRows, kTileColumns>(
        call.a, kSharedRows, call.columns_of_b,
        [&](int64_t row, int64_t column, const float* left, const float* right, int64_t begin, int64_t depth) {
          call.tile(row, column, left, right, begin, depth);
        });
  } else {
    multiply_parts<kTileColumns, kTileRows>(
        call.columns_of_b, kSharedColumns, call.a,
        [&](int64_t column, int64_t row, const float* right, const float* left, int64_t begin, int64_t depth) {
          call.tile(row, column, left, right, begin, depth);
        });
  }
}

}  // namespace kogpt2
