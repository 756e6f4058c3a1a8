// kogpt2_embedding(tokens, embed_weight, pos_weight, seed; p, site, offset=0, req) -> out
//
//   out[b, t] = mask * (embed_weight[tokens[b, t]] + pos_weight[offset + t])
//
// tokens (B, T) ids as int32 or float32, embed_weight (V, C), pos_weight (max_length, C), seed (64,), out (B, T, C).
// offset is the number of positions in a cached past. mask is 0 or 1 / (1 - p), drawn from (seed, site, element)
// whenever it is needed; the rows of its elements are b T + t.
// Backward, with g = d out: row k of d embed_weight is the sum of mask * g over the places that have token k, and row k
// of d pos_weight is the sum over the places at position k. Both are dense, and zero elsewhere. Saved: nothing.
//
// kogpt2_embedding_rows(tokens, embed_weight, pos_weight, seed, rows; p, site, offset=0, req) -> out
//
// The same, but embed_weight has no gradient. Instead, the gradient of rows (B, T, C), whose values are not read, is
// mask * g, and kogpt2_add_rows (add_rows.cc) adds it to the matrix's gradient.
//
// Each thread adds up columns of its own, row after row. So there is no race, and the order of the sums does not depend
// on the number of threads.
#include <algorithm>

#include "dropout.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

constexpr int64_t kStrip = 16 * kDecisionsPerBlock;  // columns taken at a time

// What both passes need: sizes, ids and dropout.
struct Call {
  int64_t M, T, C, V, offset;
  Buffer<int64_t> ids;  // (M,), all from 0 to V - 1
  Dropout dropout;

  Call(MXTensor& tokens, const MXTensor& embed_weight, int64_t first_position, const Dropout& mask)
      : M(tokens.size()),
        T(tokens.shape[1]),
        C(embed_weight.shape[1]),
        V(embed_weight.shape[0]),
        offset(first_position),
        ids(M),
        dropout(mask) {
    const Ids read(tokens);
    for (int64_t m = 0; m < M; ++m) ids.data()[m] = read.at(m, V);
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

// Prepares a gradient that rows are added to: it is 0 where it must be written.
void clear(const BackwardCall& arrays, size_t input) {
  if (arrays.request(input) != Request::kWrite) return;
  constexpr int64_t kPiece = 1 << 16;
  float* const values = floats(arrays.gradient(input));
  const int64_t count = arrays.gradient(input).size();
#pragma omp parallel for schedule(static)
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    std::fill_n(values + begin, std::min(kPiece, count - begin), 0.0f);
  }
}

// Calls add(m, begin, width, strip) for each strip of mask * g, where m is its row.
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

// What both operators share.
struct Embedding {
  enum Input { kTokens, kEmbedWeight, kPosWeight, kSeed };
  enum Output { kOut };
  int64_t offset;
  DropoutAttributes dropout;

  explicit Embedding(const Attributes& attributes) : offset(attributes.integer("offset", 0, 0)), dropout(attributes) {}

  Arrays inputs() const { return {{"tokens", 'n'}, {"embed_weight", 'f'}, {"pos_weight", 'f'}, {"seed", 'f'}}; }
  Arrays outputs() const { return {{"out", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape tokens = shapes.input(kTokens, 2);
    const unsigned length = tokens[1], C = shapes.input(kEmbedWeight, 2)[1];
    const unsigned max_length = shapes.input(kPosWeight, 2)[0];
    shapes.settle(kPosWeight, {max_length, C});
    shapes.settle(kSeed, {kSeedSize});
    if (offset + length > max_length) {
      fail("offset=", offset, " and a length of ", length, " go beyond max_length=", max_length,
           ", the rows of pos_weight");
    }
    shapes.output(kOut) = {tokens[0], length, C};
  }

  // A ForwardCall or a BackwardCall.
  template <typename AnyCall>
  Call read(const AnyCall& call) const {
    return Call(call.input(kTokens), call.input(kEmbedWeight), offset, dropout_from(call.input(kSeed), dropout));
  }

  void forward(const ForwardCall& arrays) const {
    Call call = read(arrays);
    const int64_t C = call.C;
    const int64_t* const ids = call.ids.data();
    const float* const embed_weight = floats(arrays.input(kEmbedWeight));
    const float* const pos_weight = floats(arrays.input(kPosWeight));
    float* const embedded = floats(arrays.output(kOut));
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

  void backward(const BackwardCall& arrays) const {
    Call call = read(arrays);
    const int64_t* const ids = call.ids.data();
    write_zeros(arrays, kTokens);
    clear(arrays, kEmbedWeight);
    clear(arrays, kPosWeight);
    write_zeros(arrays, kSeed);
    const bool wants_embed = arrays.wants(kEmbedWeight), wants_pos = arrays.wants(kPosWeight);
    float* const embed_gradient = floats(arrays.gradient(kEmbedWeight));
    float* const pos_gradient = floats(arrays.gradient(kPosWeight));
    for_each_strip(call, floats(arrays.output_gradient(kOut)),
                   [&](int64_t m, int64_t begin, int64_t width, const float* strip) {
      if (wants_embed) add_strip(strip, width, embed_gradient + ids[m] * call.C + begin);
      if (wants_pos) add_strip(strip, width, pos_gradient + call.position(m) * call.C + begin);
    });
  }
};

struct EmbeddingRows : Embedding {
  enum { kRows = kSeed + 1 };
  using Embedding::Embedding;

  Arrays inputs() const {
    Arrays declared = Embedding::inputs();
    declared.push_back({"rows", 'f'});
    return declared;
  }

  void shape(ShapeInference& shapes) const {
    Embedding::shape(shapes);
    shapes.settle(kRows, shapes.output(kOut));
  }

  void backward(const BackwardCall& arrays) const {
    if (arrays.wants(kEmbedWeight)) fail("the gradient of embed_weight is that of rows: req null for it");
    Call call = read(arrays);
    write_zeros(arrays, kTokens);
    clear(arrays, kPosWeight);
    write_zeros(arrays, kSeed);
    const bool wants_pos = arrays.wants(kPosWeight);
    const Request rows_request = arrays.request(kRows);
    float* const rows_gradient = floats(arrays.gradient(kRows));
    float* const pos_gradient = floats(arrays.gradient(kPosWeight));
    for_each_strip(call, floats(arrays.output_gradient(kOut)),
                   [&](int64_t m, int64_t begin, int64_t width, const float* strip) {
      float* const row = rows_gradient + m * call.C + begin;
      if (rows_request == Request::kWrite) std::copy_n(strip, width, row);
      if (rows_request == Request::kAdd) add_strip(strip, width, row);
      if (wants_pos) add_strip(strip, width, pos_gradient + call.position(m) * call.C + begin);
    });
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_embedding, Embedding);
KOGPT2_OPERATOR(kogpt2_embedding_rows, EmbeddingRows);

}  // namespace kogpt2
