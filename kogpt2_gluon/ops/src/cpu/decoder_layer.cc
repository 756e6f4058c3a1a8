// A whole layer of the network for generation, one or a few tokens behind those whose keys and values are kept.
//
// kogpt2_decoder_layer(hidden, key_cache, value_cache, position,
//                      attn_gamma, attn_beta, qkv_weight, qkv_bias, out_weight, out_bias,
//                      ffn_gamma, ffn_beta, hidden_weight, hidden_bias, out_map_weight, out_map_bias;
//                      num_heads, precision) -> out
//
//   attended = hidden + attention(LayerNorm(hidden)) out_weight^T + out_bias
//   out = attended + gelu(LayerNorm(attended) hidden_weight^T + hidden_bias) out_map_weight^T + out_map_bias
//
// hidden, out (B, T, C); caches and position as in kogpt2_attention_step (attention_cached.cc), the caches written in
// place; weights as kogpt2_decode_linear takes them (decode_linear.cc). There is no gradient.
//
// Why one operator: asking MXNet for one takes 20 us of Python's time, as long as a small one computes.
#include "attention_cached.h"
#include "decode_linear.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

enum Input {
  kHidden, kKeyCache, kValueCache, kPosition,
  kAttnGamma, kAttnBeta, kQkvWeight, kQkvBias, kOutWeight, kOutBias,
  kFfnGamma, kFfnBeta, kHiddenWeight, kHiddenBias, kOutMapWeight, kOutMapBias,
  kNumInputs
};

bool is_weight(size_t input) {
  return input == kQkvWeight || input == kOutWeight || input == kHiddenWeight || input == kOutMapWeight;
}

AttentionSizes sizes(const Attributes& attributes, const Shape& hidden) {
  expect_axes("hidden", hidden, 3);
  return attention_sizes(attributes, Shape{hidden[0], hidden[1], 3 * hidden[2]});
}

MXReturnValue types(const AttributeMap&, std::vector<int>* inputs, std::vector<int>* outputs) {
  return guarded([&] {
    for (size_t i = 0; i < inputs->size(); ++i) {
      int& type = (*inputs)[i];
      if (is_weight(i)) {
        expect_weight_type(type, i);
        continue;
      }
      const int wanted = i == kPosition ? mxnet::ext::kInt32 : mxnet::ext::kFloat32;
      if (type < 0) type = wanted;
      if (type != wanted) fail("input ", i, " has MXNet's type number ", type, "; expected ", wanted);
    }
    (*outputs)[0] = mxnet::ext::kFloat32;
  });
}

void shape(const Attributes& attributes, Shapes& in, Shapes& out) {
  const AttentionSizes s = sizes(attributes, in[kHidden]);
  const unsigned C = in[kHidden][2];
  expect_axes("key_cache", in[kKeyCache], 4);
  const Shape cache = {in[kHidden][0], static_cast<unsigned>(s.H), in[kKeyCache][2], static_cast<unsigned>(s.D)};
  expect_shape("key_cache", in[kKeyCache], cache);
  expect_shape("value_cache", in[kValueCache], cache);
  expect_shape("position", in[kPosition], {1});
  for (const Input each : {kAttnGamma, kAttnBeta, kFfnGamma, kFfnBeta}) expect_shape("LayerNorm", in[each], {C});
  expect_axes("hidden_bias", in[kHiddenBias], 1);
  const unsigned inner = in[kHiddenBias][0];
  const auto expect_map = [&](Input weight, unsigned N, unsigned K) {
    expect_weight(in[weight], N, K);
    expect_shape("bias", in[weight + 1], {N});
  };
  expect_map(kQkvWeight, 3 * C, C);
  expect_map(kOutWeight, C, C);
  expect_map(kHiddenWeight, inner, C);
  expect_map(kOutMapWeight, C, inner);
  out[0] = in[kHidden];
}

void forward(const Attributes& attributes, Tensors& in, Tensors& out) {
  const auto& hidden_shape = in[kHidden].shape;
  const AttentionSizes s = sizes(attributes, Shape(hidden_shape.begin(), hidden_shape.end()));
  const int64_t M = s.B * s.T, inner_size = in[kHiddenBias].shape[0];
  const float* const hidden = floats(in[kHidden]);
  Buffer<float> qkv(M * 3 * s.C), context(M * s.C), attended(M * s.C), inner(M * inner_size);
  const auto map = [&](const float* data, int64_t K, Input weight, const Around& around, float* result) {
    decode_linear(data, M, K, in[weight], in[weight + 1], around, result);
  };
  map(hidden, s.C, kQkvWeight, {floats(in[kAttnGamma]), floats(in[kAttnBeta]), nullptr, false}, qkv.data());
  attention_step(precision_of(attributes), qkv.data(), s, in[kKeyCache], in[kValueCache], in[kPosition], context.data());
  map(context.data(), s.C, kOutWeight, {nullptr, nullptr, hidden, false}, attended.data());
  map(attended.data(), s.C, kHiddenWeight, {floats(in[kFfnGamma]), floats(in[kFfnBeta]), nullptr, true}, inner.data());
  map(inner.data(), inner_size, kOutMapWeight, {nullptr, nullptr, attended.data(), false}, floats(out[0]));
}

void no_gradient(const Attributes&, Tensors&, Tensors&) { fail("generation's operators have no gradient"); }

MXReturnValue mutates(const AttributeMap&, std::vector<int>* inputs) {
  *inputs = {kKeyCache, kValueCache};
  return mxnet::ext::MX_SUCCESS;
}

}  // namespace

REGISTER_OP(kogpt2_decoder_layer)
    .setParseAttrs(count<kNumInputs, 1>)
    .setInferType(types)
    .setInferShape(infer_shape<shape>)
    .setForward(run<forward>, "cpu")
    .setBackward(run<no_gradient>, "cpu")
    .setMutateInputs(mutates);

}  // namespace kogpt2
