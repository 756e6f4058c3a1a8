// A whole layer of the network for generation, for one or a few tokens that follow those with cached keys and values.
//
// kogpt2_decoder_layer(hidden, key_cache, value_cache, position,
//                      attn_gamma, attn_beta, qkv_weight, qkv_bias, out_weight, out_bias,
//                      ffn_gamma, ffn_beta, hidden_weight, hidden_bias, out_map_weight, out_map_bias;
//                      num_heads, precision, activation) -> out
//
//   attended = hidden + attention(LayerNorm(hidden)) out_weight^T + out_bias
//   out = attended + gelu(LayerNorm(attended) hidden_weight^T + hidden_bias) out_map_weight^T + out_map_bias
//
// hidden, out (B, T, C). The caches and position are as in kogpt2_attention_step (attention_cached.cc); the caches are
// written in place. Weights are as kogpt2_decode_linear takes them (decode_linear.cc). There is no gradient.
//
// This is one operator because asking MXNet for an operator takes 20 us of Python's time, as long as a small one
// computes.
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

  explicit DecoderLayer(const Attributes& attributes)
      : num_heads(attributes.integer("num_heads", 1)),
        precision(precision_of(attributes)),
        activation(activation_of(attributes, "gelu")) {}

  Arrays inputs() const {
    return {{"hidden", 'f'},        {"key_cache", 'f'},   {"value_cache", 'f'},    {"position", 'i'},
            {"attn_gamma", 'f'},    {"attn_beta", 'f'},   {"qkv_weight", 'w'},     {"qkv_bias", 'f'},
            {"out_weight", 'w'},    {"out_bias", 'f'},    {"ffn_gamma", 'f'},      {"ffn_beta", 'f'},
            {"hidden_weight", 'w'}, {"hidden_bias", 'f'}, {"out_map_weight", 'w'}, {"out_map_bias", 'f'}};
  }
  Arrays outputs() const { return {{"out", 'f'}}; }
  std::vector<int> written_inputs() const { return {kKeyCache, kValueCache}; }

  void shape(ShapeInference& shapes) const {
    const Shape hidden = shapes.input(kHidden, 3);
    const unsigned C = hidden[2];
    settle_caches(shapes, hidden[0], attention_sizes(with_last(hidden, 3 * C), num_heads), kKeyCache, kValueCache);
    shapes.settle(kPosition, {1});
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
    shapes.output(kOut) = hidden;
  }

  void forward(const ForwardCall& call) const {
    const auto input = [&](Input which) { return floats(call.input(which)); };
    const std::vector<int64_t>& shape = call.input(kHidden).shape;  // (B, T, C)
    const AttentionSizes s = {shape[0], shape[1], num_heads, shape[2] / num_heads, shape[2]};
    const int64_t M = s.B * s.T, C = s.C, inner_size = call.input(kHiddenBias).shape[0];
    const float* const hidden = input(kHidden);
    Buffer<float> qkv(M * 3 * C), context(M * C), attended(M * C), inner(M * inner_size);

    decode_linear(hidden, M, C, 3 * C, call.input(kQkvWeight), {input(kAttnGamma), input(kAttnBeta)},
                  {input(kQkvBias)}, qkv.data());
    attention_step(precision, qkv.data(), s, call.input(kKeyCache), call.input(kValueCache), call.input(kPosition),
                   context.data());
    decode_linear(context.data(), M, C, C, call.input(kOutWeight), {}, {input(kOutBias), hidden}, attended.data());
    decode_linear(attended.data(), M, C, inner_size, call.input(kHiddenWeight), {input(kFfnGamma), input(kFfnBeta)},
                  {input(kHiddenBias), nullptr, activation}, inner.data());
    decode_linear(inner.data(), M, inner_size, C, call.input(kOutMapWeight), {},
                  {input(kOutMapBias), attended.data()}, floats(call.output(kOut)));
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_decoder_layer, DecoderLayer);

}  // namespace kogpt2
