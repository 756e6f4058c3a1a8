// kogpt2_embedding(tokens, embed_weight, pos_weight, seed; p, site, offset=0, req) -> out
//
//   out[b, t] = mask * (embed_weight[tokens[b, t]] + pos_weight[offset + t])
//
// tokens (B, T) ids as int32 or float32, embed_weight (V, C), pos_weight (max_length, C), seed (64,), out (B, T, C).
// offset is the number of positions that a cached past takes up. mask is 0 or 1 / (1 - p), drawn from (seed, site,
// element) whenever it is needed; the rows of its elements are b T + t.
// Backward, of g = d out: row k of d embed_weight is the sum of mask * g over the places where token k stands, row k of
// d pos_weight that over the places at position k; both are dense, zero elsewhere. Saved: nothing.
//
// kogpt2_embedding_rows(tokens, embed_weight, pos_weight, seed, rows; p, site, offset=0, req) -> out
//
// The same, but that embed_weight has no gradient: rows (B, T, C), whose values are not read, has mask * g for one, and
// kogpt2_add_rows (add_rows.cc) adds that to where it belongs.
//
// Each thread adds up columns of its own, row after row: no race, and one order of the sums whatever the threads.
#include <algorithm>

#include "dropout.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

enum Input { kTokens, kEmbedWeight, kPosWeight, kSeed, kRows };

constexpr int64_t kStrip = 16 * kDecisionsPerBlock;  // columns taken at a time

int64_t offset_of(const Attributes& attributes) { return attributes.integer("offset", 0, 0); }

void shape(const Attributes& attributes, Shapes& in, Shapes& out) {
  expect_axes("tokens", in[kTokens], 2);
  expect_axes("embed_weight", in[kEmbedWeight], 2);
  expect_axes("pos_weight", in[kPosWeight], 2);
  const unsigned length = in[kTokens][1], C = in[kEmbedWeight][1], max_length = in[kPosWeight][0];
  expect_shape("pos_weight", in[kPosWeight], {max_length, C});
  expect_shape("seed", in[kSeed], {kSeedSize});
  const int64_t offset = offset_of(attributes);
  if (offset + length > max_length) {
    fail("offset=", offset, " and a length of ", length, " go beyond max_length=", max_length,
         ", the rows of pos_weight");
  }
  out[0] = {in[kTokens][0], length, C};
  if (in.size() > kRows) expect_shape("rows", in[kRows], out[0]);
}

// What both passes need to know.
struct Call {
  int64_t M, T, C, V, offset;
  Buffer<int64_t> ids;  // (M,), all within 0 .. V - 1
  Dropout dropout;

  Call(const Attributes& attributes, Tensors& tensors, int first_input)
      : M(tensors[first_input + kTokens].size()),
        T(tensors[first_input + kTokens].shape[1]),
        C(tensors[first_input + kEmbedWeight].shape[1]),
        V(tensors[first_input + kEmbedWeight].shape[0]),
        offset(offset_of(attributes)),
        ids(M),
        dropout(dropout_from(floats(tensors[first_input + kSeed]), attributes)) {
    const Ids tokens(tensors[first_input + kTokens]);
    for (int64_t m = 0; m < M; ++m) ids.data()[m] = tokens.at(m, V);
  }

  int64_t position(int64_t m) const { return offset + m % T; }

  // The multipliers of row m, columns begin .. begin + count - 1; `begin` is a multiple of 8.
  void mask(int64_t m, int64_t begin, int64_t count, float* to) const {
    const int64_t stride = (C + kDecisionsPerBlock - 1) / kDecisionsPerBlock * kDecisionsPerBlock;
    if (dropout.active()) {
      fill_mask(dropout, static_cast<uint64_t>(m * stride + begin), count, to);
    } else {
      std::fill_n(to, count, 1.0f);
    }
  }
};

void forward(const Attributes& attributes, Tensors& in, Tensors& out) {
  Call call(attributes, in, 0);
  const int64_t C = call.C;
  const int64_t* const ids = call.ids.data();
  const float* const embed_weight = floats(in[kEmbedWeight]);
  const float* const pos_weight = floats(in[kPosWeight]);
  float* const embedded = floats(out[0]);
#pragma omp parallel for schedule(static)
  for (int64_t m = 0; m < call.M; ++m) {
    const float* const token = embed_weight + ids[m] * C;
    const float* const position = pos_weight + call.position(m) * C;
    float* const to = embedded + m * C;
    for (int64_t begin = 0; begin < C; begin += kStrip) {
      const int64_t end = std::min(C, begin + kStrip);
      float mask[kStrip];
      call.mask(m, begin, end - begin, mask);
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) to[i] = mask[i - begin] * (token[i] + position[i]);
    }
  }
}

// Prepares a gradient that rows are added to.
void clear(MXTensor& gradient, Request request) {
  if (request != Request::kWrite) return;
  constexpr int64_t kPiece = 1 << 16;
  float* const values = floats(gradient);
  const int64_t count = gradient.size();
#pragma omp parallel for schedule(static)
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    std::fill_n(values + begin, std::min(kPiece, count - begin), 0.0f);
  }
}

// What becomes of the strip of mask * g that belongs to row m: add(m, begin, width, strip).
template <typename Add>
void for_each_strip(const Call& call, const float* gradient, const Add& add) {
  const int64_t C = call.C;
#pragma omp parallel for schedule(static)
  for (int64_t begin = 0; begin < C; begin += kStrip) {
    const int64_t width = std::min(kStrip, C - begin);
    float masked[kStrip];
    for (int64_t m = 0; m < call.M; ++m) {
      call.mask(m, begin, width, masked);
      const float* const from = gradient + m * C + begin;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) masked[i] *= from[i];
      add(m, begin, width, masked);
    }
  }
}

void add_strip(const float* from, int64_t count, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

constexpr int kFirstInput = 1;  // of a backward pass: behind the gradient of the output

void backward(const Attributes& attributes, Tensors& in, Tensors& gradients) {
  const auto requests = attributes.requests(gradients.size());
  Call call(attributes, in, kFirstInput);
  const int64_t* const ids = call.ids.data();
  for (size_t i = 0; i < gradients.size(); ++i) clear(gradients[i], requests[i]);  // those of tokens and seed are 0
  const bool wants_embed = requests[kEmbedWeight] != Request::kNull, wants_pos = requests[kPosWeight] != Request::kNull;
  float* const embed_gradient = floats(gradients[kEmbedWeight]);
  float* const pos_gradient = floats(gradients[kPosWeight]);
  for_each_strip(call, floats(in[0]), [&](int64_t m, int64_t begin, int64_t width, const float* strip) {
    if (wants_embed) add_strip(strip, width, embed_gradient + ids[m] * call.C + begin);
    if (wants_pos) add_strip(strip, width, pos_gradient + call.position(m) * call.C + begin);
  });
}

void backward_rows(const Attributes& attributes, Tensors& in, Tensors& gradients) {
  const auto requests = attributes.requests(gradients.size());
  if (requests[kEmbedWeight] != Request::kNull) fail("the gradient of embed_weight is that of rows: req null for it");
  Call call(attributes, in, kFirstInput);
  for (int i = 0; i < kRows; ++i) clear(gradients[i], requests[i]);
  const bool wants_pos = requests[kPosWeight] != Request::kNull;
  float* const rows_gradient = floats(gradients[kRows]);
  float* const pos_gradient = floats(gradients[kPosWeight]);
  for_each_strip(call, floats(in[0]), [&](int64_t m, int64_t begin, int64_t width, const float* strip) {
    float* const row = rows_gradient + m * call.C + begin;
    if (requests[kRows] == Request::kWrite) std::copy_n(strip, width, row);
    if (requests[kRows] == Request::kAdd) add_strip(strip, width, row);
    if (wants_pos) add_strip(strip, width, pos_gradient + call.position(m) * call.C + begin);
  });
}

}  // namespace

KOGPT2_OPERATOR(kogpt2_embedding, 4, 1, 1u << kTokens, shape, forward, backward);
KOGPT2_OPERATOR(kogpt2_embedding_rows, 5, 1, 1u << kTokens, shape, forward, backward_rows);

}  // namespace kogpt2
