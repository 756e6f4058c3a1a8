// kogpt2_pack_codes(planes, scales; columns) -> packed
//
//   planes (bits, N, ceil(K / 8)) uint8: bit j of the codes of a row, the first column in the lowest bit
//   scales (bits, N, groups) float32
//   packed (bytes,) uint8, laid out as binary_codes.h says. K is `columns`, and a group has K / groups of them
#include "binary_codes.h"

#include <array>
#include <cmath>
#include <cstring>

#include "cpu_operator.h"

namespace kogpt2 {
namespace {

// The bits of a code in a block: `count` of them from bit `from` of the code on are in a word of `bytes` at `begin`.
struct Field {
  int64_t begin, bytes, shift, from, count;
};

// The fields of the code at `place` (0 .. 255) of a block; the second has no bits unless a code is divided.
std::array<Field, 2> fields_of(int64_t bits, int64_t place) {
  const int64_t p = place / kCodeLanes, lane = place % kCodeLanes, second = 4 * kCodeLanes;
  if (bits == 1) return {{{2 * lane, 2, p, 0, 1}, {}}};
  if (bits == 2) return {{{4 * lane, 4, 2 * p, 0, 2}, {}}};
  if (bits == 4) return {{{p / 8 * second + 4 * lane, 4, 4 * (p % 8), 0, 4}, {}}};
  if (p < 10) return {{{4 * lane, 4, 3 * p, 0, 3}, {}}};
  if (p < 15) return {{{second + 2 * lane, 2, 3 * (p - 10), 0, 3}, {}}};
  return {{{4 * lane, 4, 30, 0, 2}, {second + 2 * lane, 2, 15, 2, 1}}};
}

// Writes a code into a block that was zero there.
void put_code(uint8_t* block, int64_t bits, int64_t place, uint32_t code) {
  for (const Field& field : fields_of(bits, place)) {
    uint32_t word = 0;  // the processor is little-endian
    std::memcpy(&word, block + field.begin, static_cast<size_t>(field.bytes));
    word |= (code >> field.from & ((1u << field.count) - 1)) << field.shift;
    std::memcpy(block + field.begin, &word, static_cast<size_t>(field.bytes));
  }
}

struct PackCodes : NoGradient {
  enum Input { kPlanes, kScales };
  enum Output { kPacked };
  int64_t columns;

  explicit PackCodes(const Attributes& attributes) : columns(attributes.integer("columns", 1)) {}

  Arrays inputs() const { return {{"planes", 'u'}, {"scales", 'f'}}; }
  Arrays outputs() const { return {{"packed", 'u'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape planes = shapes.input(kPlanes, 3), scales = shapes.input(kScales, 3);
    if (planes[0] > kMaxBits) shapes.refuse(kPlanes, "at most 4 bits");
    const unsigned width = static_cast<unsigned>((columns + 7) / 8);
    shapes.settle(kPlanes, {planes[0], planes[1], width});
    shapes.settle(kScales, {planes[0], planes[1], scales[2]});
    if (columns % scales[2]) fail(columns, " columns are not ", scales[2], " groups");
    shapes.output(kPacked) = {static_cast<unsigned>(layout_of(planes[0], planes[1], scales[2]).bytes())};
  }

  void forward(const ForwardCall& call) const {
    MXTensor &planes = call.input(kPlanes), &given = call.input(kScales);
    const CodesLayout layout = layout_of(planes.shape[0], planes.shape[1], given.shape[2]);
    const int64_t bits = layout.bits, N = layout.N, groups = layout.groups(), width = planes.shape[2];
    uint8_t* const out = call.output(kPacked).data<uint8_t>();
    std::memset(out, 0, static_cast<size_t>(layout.bytes()));
    const int32_t header[] = {kCodesMagic, static_cast<int32_t>(bits), static_cast<int32_t>(N),
                              static_cast<int32_t>(layout.K), static_cast<int32_t>(layout.group_size)};
    std::memcpy(out, header, sizeof header);
    float* const scales = reinterpret_cast<float*>(out + kCodesHeader);
    for (int64_t j = 0; j < bits; ++j) {
      for (int64_t i = 0; i < N * groups; ++i) {
        const float scale = floats(given)[j * N * groups + i];
        if (!std::isfinite(scale)) fail("a scale of row ", i / groups, " is not finite");
        scales[i / groups * layout.row_scales() + i % groups * bits + j] = scale;
      }
    }
    const uint8_t* const ones = planes.data<uint8_t>();
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; ++n) {
      uint8_t* const row = out + layout.codes_begin() + n * layout.row_bytes();
      for (int64_t k = 0; k < layout.K; ++k) {
        uint32_t code = 0;
        for (int64_t j = 0; j < bits; ++j) code |= (ones[(j * N + n) * width + k / 8] >> (k % 8) & 1u) << j;
        const int64_t place = layout.place(k);
        put_code(row + place / kBlock * layout.block_bytes(), bits, place % kBlock, code);
      }
    }
  }

 private:
  CodesLayout layout_of(int64_t bits, int64_t N, int64_t groups) const { return {bits, N, columns, columns / groups}; }
};

}  // namespace

CodedWeight coded_weight(const void* bytes, int64_t size) {
  const uint8_t* const from = static_cast<const uint8_t*>(bytes);
  int32_t header[5] = {};
  if (size >= kCodesHeader) std::memcpy(header, from, sizeof header);
  const CodesLayout layout = {header[1], header[2], header[3], header[4]};
  constexpr int64_t kMost = 1 << 24;  // rows or columns: all sizes stay far below 2^63
  const auto is_size = [](int64_t count) { return count > 0 && count <= kMost; };
  const bool is_one = header[0] == kCodesMagic && layout.bits >= 1 && layout.bits <= kMaxBits && is_size(layout.N) &&
                      is_size(layout.K) && is_size(layout.group_size) && layout.K % layout.group_size == 0;
  if (!is_one || layout.bytes() != size) fail(size, " bytes are no weight of kogpt2_pack_codes");
  return {layout, reinterpret_cast<const float*>(from + kCodesHeader), from + layout.codes_begin()};
}

KOGPT2_OPERATOR(kogpt2_pack_codes, PackCodes);

}  // namespace kogpt2
