// A whole layer of the network for generation, for one or a few tokens that follow those with cached keys and values.
//
// kogpt2_decoder_layer(hidden, key_cache, value_cache, position,
//                      attn_gamma, attn_beta, qkv_weight, qkv_bias, out_weight, out_bias,
//                      ffn_gamma, ffn_beta, hidden_weight, hidden_bias, out_map_weight, out_map_bias;
//                      num_heads, precision, activation, last_only) -> out
//
//   attended = hidden + attention(LayerNorm(hidden)) out_weight^T + out_bias
//   out = attended + gelu(LayerNorm(attended) hidden_weight^T + hidden_bias) out_map_weight^T + out_map_bias
//
// hidden, out (B, T, C). The caches and position are as in kogpt2_attention_step (attention_cached.cc); the caches are
// written in place. Weights are as kogpt2_decode_linear takes them (decode_linear.cc). With last_only=1, out (1, texts,
// C) has only the last token of each text: keys and values of the others are all that a last layer is needed for.
//
// Runs of more than kFewRows tokens are products of their own, and all tokens of other runs that follow each other are
// one. So what a run becomes does not depend on the rest of the pass, to the last bit. There is no gradient.
//
// This is one operator because asking MXNet for an operator takes 20 us of Python's time, as long as a small one
// computes.
#include <algorithm>

#include "attention_cached.h"
#include "decode_linear.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

struct DecoderLayer : NoGradient {
  enum Input {
    kHidden, kKeyCache, kValueCache, kPosition,
    kAttnGamma, kAttnBeta, kQkvWeight, kQkvBias, kOutWeight, kOutBias,
    kFfnGamma, kFfnBeta, kHiddenWeight, kHiddenBias, kOutMapWeight, kOutMapBias
  };
  enum Output { kOut };
  int64_t num_heads;
  Precision precision;
  Activation activation;
  Rows rows;

  explicit DecoderLayer(const Attributes& attributes)
      : num_heads(attributes.integer("num_heads", 1)),
        precision(precision_of(attributes)),
        activation(activation_of(attributes, "gelu")),
        rows(attributes.integer("last_only", 0, 0) ? Rows::kLast : Rows::kAll) {}

  Arrays inputs() const {
    return {{"hidden", 'f'},        {"key_cache", 'w'},   {"value_cache", 'w'},    {"position", 'i'},
            {"attn_gamma", 'f'},    {"attn_beta", 'f'},   {"qkv_weight", 'w'},     {"qkv_bias", 'f'},
            {"out_weight", 'w'},    {"out_bias", 'f'},    {"ffn_gamma", 'f'},      {"ffn_beta", 'f'},
            {"hidden_weight", 'w'}, {"hidden_bias", 'f'}, {"out_map_weight", 'w'}, {"out_map_bias", 'f'}};
  }
  Arrays outputs() const { return {{"out", 'f'}}; }
  std::vector<int> written_inputs() const { return {kKeyCache, kValueCache}; }

  void shape(ShapeInference& shapes) const {
    const Shape hidden = shapes.input(kHidden, 3);
    const unsigned C = hidden[2];
    settle_caches(shapes, hidden[0], attention_sizes(with_last(hidden, 3 * C), num_heads), kKeyCache, kValueCache,
                  kPosition);
    for (const Input each : {kAttnGamma, kAttnBeta, kFfnGamma, kFfnBeta}) shapes.settle(each, {C});
    const unsigned inner = shapes.input(kHiddenBias, 1)[0];
    const auto settle_map = [&](Input weight, Input bias, unsigned N, unsigned K) {
      settle_weight(shapes, weight, N, K);
      shapes.settle(bias, {N});
    };
    settle_map(kQkvWeight, kQkvBias, 3 * C, C);
    settle_map(kOutWeight, kOutBias, C, C);
    settle_map(kHiddenWeight, kHiddenBias, inner, C);
    settle_map(kOutMapWeight, kOutMapBias, C, inner);
    const Shape& position = shapes.input(kPosition);
    const unsigned texts = position.size() == 2 ? position[0] : hidden[0];
    shapes.output(kOut) = rows == Rows::kLast ? Shape{1, texts, C} : hidden;
  }

  void forward(const ForwardCall& call) const {
    const auto input = [&](Input which) { return floats(call.input(which)); };
    const std::vector<int64_t>& shape = call.input(kHidden).shape;  // (B, T, C)
    const int64_t C = shape[2], inner_size = call.input(kHiddenBias).shape[0];
    const std::vector<Run> runs = runs_of(call.input(kPosition), shape[0], shape[1], call.input(kKeyCache));
    const std::vector<Part> read = parts_of(call.input(kPosition), runs);
    const std::vector<Part> last_parts = {{0, static_cast<int64_t>(runs.size()), false}};
    const std::vector<Part>& wanted = rows == Rows::kLast ? last_parts : read;
    const int64_t M = read.back().begin + read.back().count, W = wanted.back().begin + wanted.back().count;
    const float* const hidden = input(kHidden);
    Buffer<float> qkv(M * 3 * C), context(W * C), last(rows == Rows::kLast ? W * C : 1), attended(W * C);
    Buffer<float> inner(W * inner_size);
    const auto map = [&](const float* data, const std::vector<Part>& parts, int64_t K, int64_t N, Input weight,
                         const Normalization& normalization, const Epilogue& epilogue, float* out) {
      decode_linear(data, parts, K, N, call.input(weight), precision, normalization, epilogue, out);
    };

    map(hidden, read, C, 3 * C, kQkvWeight, {input(kAttnGamma), input(kAttnBeta)}, {input(kQkvBias)}, qkv.data());
    attend_runs(precision, qkv.data(), num_heads, C / num_heads, runs, call.input(kKeyCache), call.input(kValueCache),
                rows, context.data());
    const float* const residual = rows == Rows::kLast ? last_rows(hidden, runs, C, last.data()) : hidden;
    map(context.data(), wanted, C, C, kOutWeight, {}, {input(kOutBias), residual}, attended.data());
    map(attended.data(), wanted, C, inner_size, kHiddenWeight, {input(kFfnGamma), input(kFfnBeta)},
        {input(kHiddenBias), nullptr, activation}, inner.data());
    map(inner.data(), wanted, inner_size, C, kOutMapWeight, {}, {input(kOutMapBias), attended.data()},
        floats(call.output(kOut)));
  }

 private:
  // The products of a pass: one if all texts have the same length, else as the beginning of this file says.
  static std::vector<Part> parts_of(const MXTensor& position, const std::vector<Run>& runs) {
    if (position.shape.size() == 1) return {part_of(0, runs.back().begin + runs.back().count)};
    std::vector<Part> parts;
    for (const Run& run : runs) {
      const Part part = part_of(run.begin, run.count);
      if (!part.is_many && !parts.empty() && !parts.back().is_many) {
        parts.back().count += part.count;
      } else {
        parts.push_back(part);
      }
    }
    return parts;
  }

  // Copies the row of each run's last token to `to`, and returns `to`.
  static const float* last_rows(const float* hidden, const std::vector<Run>& runs, int64_t C, float* to) {
    for (size_t r = 0; r < runs.size(); ++r) std::copy_n(hidden + (runs[r].begin + runs[r].count - 1) * C, C, to + r * C);
    return to;
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_decoder_layer, DecoderLayer);

}  // namespace kogpt2
