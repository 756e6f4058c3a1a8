// A weight in binary codes, as products read it: W[n, k] = sum over j < bits of scale[n, g(k), j] * (+1 or -1), where the
// columns of a group g share scales (Kwon et al., AlphaTuning, arXiv 2210.03858). So each number is one of 2^bits levels
// of its row and group, and its code, `bits` bits, says which: bit j of it is 1 for +1.
//
// As bytes:
//   header   64 bytes: int32 kMagic, bits, N, K, group_size
//   scales   (N, groups, bits) float32, of groups that fill whole blocks, then zeros up to a multiple of 64 bytes
//   codes    N rows of blocks. A block has 16 vectors of 16 codes, in 16 lanes. Code p of a lane is that of vector p:
//              1 bit   16 bits a lane
//              2 bits  32 bits a lane
//              3 bits  32 bits a lane with codes 0 to 9 and, on top, the two low bits of code 15; then 16 bits a lane
//                      with codes 10 to 14 and, on top, the high bit of code 15
//              4 bits  32 bits a lane with codes 0 to 7, then 32 with codes 8 to 15
//
// So a shift, a look-up in a table of 16 levels that a register holds, and a product make 16 numbers. The columns of a
// group are padded to 1, 2, 4, 8 or a multiple of 16 vectors, so that a block has whole groups or is part of one; the
// data is padded with zeros in the same places.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kogpt2 {

constexpr int kMaxBits = 4, kCodeLanes = 16, kBlockVectors = 16, kBlock = kCodeLanes * kBlockVectors;
constexpr int64_t kCodesHeader = 64;  // bytes
constexpr int32_t kCodesMagic = 0x31434442;

// Where everything is in such bytes.
struct CodesLayout {
  int64_t bits, N, K, group_size;

  int64_t groups() const { return K / group_size; }
  // Vectors of a group, with padding.
  int64_t vectors() const {
    const int64_t needed = (group_size + kCodeLanes - 1) / kCodeLanes;
    if (needed > 8) return (needed + kBlockVectors - 1) / kBlockVectors * kBlockVectors;
    return needed > 4 ? 8 : needed > 2 ? 4 : needed;
  }
  int64_t padded_group() const { return vectors() * kCodeLanes; }
  int64_t blocks() const { return (groups() * padded_group() + kBlock - 1) / kBlock; }
  int64_t padded_columns() const { return blocks() * kBlock; }
  bool is_padded() const { return padded_columns() != K; }
  // The place of a column among the padded ones.
  int64_t place(int64_t k) const { return k / group_size * padded_group() + k % group_size; }
  int64_t block_bytes() const { return bits * kBlock / 8; }
  int64_t row_bytes() const { return blocks() * block_bytes(); }
  // Scales of a row, with those of groups that are only padding.
  int64_t row_scales() const {
    return bits * (vectors() < kBlockVectors ? blocks() * kBlockVectors / vectors() : groups());
  }
  int64_t codes_begin() const { return kCodesHeader + (N * row_scales() * 4 + 63) / 64 * 64; }
  int64_t bytes() const { return codes_begin() + N * row_bytes(); }
};

// A weight in memory.
struct CodedWeight {
  CodesLayout layout;
  const float* scales;   // (N, row_scales)
  const uint8_t* codes;  // (N, row_bytes)
};

// Reads the header of `size` bytes. Refuses what does not have this layout.
CodedWeight coded_weight(const void* bytes, int64_t size);

// out (K,) = row n.
void restore_row(const CodedWeight& weight, int64_t n, float* out);

// out (M, N) = data weight^T for data (M, K), as multiply_rows() of few_rows.h does it: a sum has one order, whatever M is.
void multiply_by_codes(const float* data, const CodedWeight& weight, int64_t M, float* out);

}  // namespace kogpt2
