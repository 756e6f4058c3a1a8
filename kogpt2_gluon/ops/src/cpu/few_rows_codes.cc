// The products of few_rows.h for a weight in binary codes (binary_codes.h). The data and the sums are float32.
#include "binary_codes.h"
#include "few_rows_blocks.h"
#include "scratch.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace kogpt2 {
namespace {

typedef uint32_t Words __attribute__((vector_size(4 * kSixteen)));
typedef uint16_t Halves __attribute__((vector_size(2 * kSixteen)));

// 32 bits of each lane.
KOGPT2_INLINE Words words_at(const uint8_t* from) {
  Words words;
  std::memcpy(&words, from, sizeof words);
  return words;
}

// 16 bits of each lane.
KOGPT2_INLINE Words halves_at(const uint8_t* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  return __builtin_convertvector(halves, Words);
}

// A block of codes in registers. code<p>() is those of vector p; what is above their bits is undefined.
template <int bits>
struct Block {
  Words first, second = {};

  KOGPT2_INLINE static Block at(const uint8_t* from) {
    if constexpr (bits == 1) return {halves_at(from)};
    if constexpr (bits == 2) return {words_at(from)};
    if constexpr (bits == 3) return {words_at(from), halves_at(from + sizeof(Words))};
    return {words_at(from), words_at(from + sizeof(Words))};
  }

  template <int p>
  KOGPT2_INLINE Words code() const {
    constexpr int kFirst = bits == 3 ? 10 : bits == 4 ? 8 : kBlockVectors;  // so many vectors are in `first`
    if constexpr (bits == 3 && p == 15) return (first >> 30) | ((second >> 13) & 4);
    if constexpr (p < kFirst) return first >> (bits * p);
    return second >> (bits * (p - kFirst));
  }
};

struct Signs {
  float of[kMaxBits][kSixteen];
};

constexpr Signs make_signs() {
  Signs signs = {};
  for (int j = 0; j < kMaxBits; ++j) {
    for (int code = 0; code < kSixteen; ++code) signs.of[j][code] = code >> j & 1 ? 1.0f : -1.0f;
  }
  return signs;
}

alignas(64) constexpr Signs kSigns = make_signs();  // of each scale in each code

// The levels of a group, one for each code: the scales are added in their order. With fewer bits than 4 they repeat, so
// that the undefined bits above a code do not matter.
template <int bits>
KOGPT2_INLINE Sixteen levels_at(const float* scales) {
  Sixteen levels = {};
#pragma GCC unroll 4
  for (int j = 0; j < bits; ++j) levels += scales[j] * load_sixteen(kSigns.of[j]);
  return levels;
}

// levels[code] of each lane. There are intrinsics because no loop that the compiler knows becomes these instructions.
template <int bits>
KOGPT2_INLINE Sixteen look_up(const Sixteen& levels, const Words& code) {
#if defined(__AVX512F__)
  return (Sixteen)_mm512_permutexvar_ps((__m512i)code, (__m512)levels);
#elif defined(__AVX2__)
  __m256 halves[2], found[2];
  __m256i codes[2];
  std::memcpy(halves, &levels, sizeof halves);
  std::memcpy(codes, &code, sizeof codes);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    found[i] = _mm256_permutevar8x32_ps(halves[0], codes[i]);
    if constexpr (bits == 4) {
      const __m256 upper = _mm256_permutevar8x32_ps(halves[1], codes[i]);
      found[i] = _mm256_blendv_ps(found[i], upper, _mm256_castsi256_ps(_mm256_slli_epi32(codes[i], 28)));
    }
  }
  Sixteen values;
  std::memcpy(&values, found, sizeof values);
  return values;
#else
  constexpr uint32_t kMask = (1u << bits) - 1;
  float table[kSixteen], values[kSixteen];
  uint32_t codes[kSixteen];
  std::memcpy(table, &levels, sizeof table);
  std::memcpy(codes, &code, sizeof codes);
  for (int i = 0; i < kSixteen; ++i) values[i] = table[codes[i] & kMask];
  return load_sixteen(values);
#endif
}

struct Product {
  const float* data;  // (M, K), padded as the codes are
  CodedWeight weight;
  int64_t M, N, K;  // K with padding
  float* out;
  int64_t vectors = weight.layout.vectors();  // of a group
  int64_t blocks = weight.layout.blocks();    // of a row
  int64_t row_scales = weight.layout.row_scales();

  int64_t row_bytes() const { return weight.layout.row_bytes(); }
};

// Adds the products of vector p and of those that follow in a block of W rows. With is_small, a block has several
// groups, and `scales` are those of its first one.
template <int bits, bool is_small, int p, int R, int W>
KOGPT2_INLINE void add_products(const Product& product, const Block<bits> (&rows)[W], const float* scales,
                                const float* data, Sixteen (&levels)[W], Sixteen (&total)[R][W]) {
  if (is_small && p % product.vectors == 0) {
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) {
      levels[w] = levels_at<bits>(scales + w * product.row_scales + p / product.vectors * bits);
    }
  }
  Sixteen factors[W];
#pragma GCC unroll 8
  for (int w = 0; w < W; ++w) factors[w] = look_up<bits>(levels[w], rows[w].template code<p>());
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const Sixteen values = load_sixteen(data + r * product.K + p * kSixteen);
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) total[r][w] += factors[w] * values;
  }
  if constexpr (p + 1 < kBlockVectors) add_products<bits, is_small, p + 1>(product, rows, scales, data, levels, total);
}

// R rows of data from `row` on, and W rows of the weight from `column` on; both are read once. Whatever R and W are, a
// number of the result gets its products one after another, in one order.
template <int bits, bool is_small, int R, int W>
void multiply_block(const Product& product, int64_t row, int64_t column) {
  constexpr int64_t kBytes = bits * kBlock / 8;
  const int64_t row_bytes = product.row_bytes(), group_blocks = product.vectors / kBlockVectors;
  const float* data = product.data + row * product.K;
  const float* scales = product.weight.scales + column * product.row_scales;
  const uint8_t* codes = product.weight.codes + column * row_bytes;
  Sixteen total[R][W] = {}, levels[W];
  for (int64_t block = 0, left = 0; block < product.blocks; ++block, codes += kBytes, data += kBlock) {
    if (!is_small && left-- == 0) {
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) levels[w] = levels_at<bits>(scales + w * product.row_scales);
      scales += bits;
      left = group_blocks - 1;
    }
    Block<bits> rows[W];
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) rows[w] = Block<bits>::at(codes + w * row_bytes);
    add_products<bits, is_small, 0>(product, rows, scales, data, levels, total);
    if (is_small) scales += kBlockVectors / product.vectors * bits;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    float sums[W];
    sums_of<W>(total[r], sums);
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) product.out[(row + r) * product.N + column + w] = sums[w];
  }
}

template <int bits, bool is_small>
void multiply(const Product& product) {
  constexpr int kOneRow = 4, kSeveral = 2;  // rows of the weight in a block: sums, levels and codes fit the registers
  using Function = void (*)(const Product&, int64_t, int64_t);
  static constexpr Function kFunctions[kDataRows] = {
      multiply_block<bits, is_small, 1, kSeveral>, multiply_block<bits, is_small, 2, kSeveral>,
      multiply_block<bits, is_small, 3, kSeveral>, multiply_block<bits, is_small, 4, kSeveral>,
      multiply_block<bits, is_small, 5, kSeveral>, multiply_block<bits, is_small, 6, kSeveral>};
  const auto one = [&](int64_t row, int64_t rows, int64_t column) {
    for (int64_t r = row; r < row + rows; ++r) multiply_block<bits, is_small, 1, 1>(product, r, column);
  };
  if (product.M == 1) {
    const auto block = [&](int64_t, int64_t, int64_t column) {
      multiply_block<bits, is_small, 1, kOneRow>(product, 0, column);
    };
    return for_each_block<kOneRow>(product, block, one);
  }
  const auto block = [&](int64_t row, int64_t rows, int64_t column) { kFunctions[rows - 1](product, row, column); };
  for_each_block<kSeveral>(product, block, one);
}

template <int bits>
void multiply(const Product& product) {
  product.vectors < kBlockVectors ? multiply<bits, true>(product) : multiply<bits, false>(product);
}

// Copies data (M, K) to where the codes of its columns are.
void pad(const float* data, const CodesLayout& layout, int64_t M, float* padded) {
  const int64_t size = layout.group_size, group = layout.padded_group(), columns = layout.padded_columns();
  std::fill_n(padded, M * columns, 0.0f);
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t g = 0; g < layout.groups(); ++g) {
      std::copy_n(data + m * layout.K + g * size, size, padded + m * columns + g * group);
    }
  }
}

// Writes the numbers of vector p of a block and of those that follow to `out`.
template <int bits, int p>
KOGPT2_INLINE void write_levels(const Block<bits>& codes, int64_t vectors, const float* scales, Sixteen& levels,
                                float* out) {
  if (vectors < kBlockVectors && p % vectors == 0) levels = levels_at<bits>(scales + p / vectors * bits);
  const Sixteen values = look_up<bits>(levels, codes.template code<p>());
  std::memcpy(out + p * kSixteen, &values, sizeof values);
  if constexpr (p + 1 < kBlockVectors) write_levels<bits, p + 1>(codes, vectors, scales, levels, out);
}

// Writes row n, with padding.
template <int bits>
void write_row(const CodedWeight& weight, int64_t n, float* out) {
  const CodesLayout& layout = weight.layout;
  const int64_t vectors = layout.vectors(), group_blocks = vectors / kBlockVectors;
  const float* scales = weight.scales + n * layout.row_scales();
  const uint8_t* codes = weight.codes + n * layout.row_bytes();
  Sixteen levels = {};
  for (int64_t block = 0; block < layout.blocks(); ++block) {
    if (group_blocks && block % group_blocks == 0) {
      levels = levels_at<bits>(scales);
      scales += bits;
    }
    write_levels<bits, 0>(Block<bits>::at(codes), vectors, scales, levels, out);
    if (!group_blocks) scales += kBlockVectors / vectors * bits;
    codes += layout.block_bytes();
    out += kBlock;
  }
}

}  // namespace

void multiply_by_codes(const float* data, const CodedWeight& weight, int64_t M, float* out) {
  const CodesLayout& layout = weight.layout;
  const int64_t columns = layout.padded_columns();
  Buffer<float> padded(layout.is_padded() ? M * columns : 1);
  if (layout.is_padded()) {
    pad(data, layout, M, padded.data());
    data = padded.data();
  }
  const Product product = {data, weight, M, layout.N, columns, out};
  switch (layout.bits) {
    case 1: return multiply<1>(product);
    case 2: return multiply<2>(product);
    case 3: return multiply<3>(product);
    default: return multiply<4>(product);
  }
}

void restore_row(const CodedWeight& weight, int64_t n, float* out) {
  const CodesLayout& layout = weight.layout;
  Buffer<float> padded(layout.padded_columns());
  switch (layout.bits) {
    case 1: write_row<1>(weight, n, padded.data()); break;
    case 2: write_row<2>(weight, n, padded.data()); break;
    case 3: write_row<3>(weight, n, padded.data()); break;
    default: write_row<4>(weight, n, padded.data());
  }
  for (int64_t g = 0; g < layout.groups(); ++g) {
    std::copy_n(padded.data() + g * layout.padded_group(), layout.group_size, out + g * layout.group_size);
  }
}

}  // namespace kogpt2
