// The whole network for generation: the next tokens of any number of texts, of any lengths, in one pass.
//
// kogpt2_decoder(tokens, runs, embed, pos_embed, final_gamma, final_beta,
//                for each layer: key_cache, value_cache,
//                                attn_gamma, attn_beta, qkv_weight, qkv_bias, out_weight, out_bias,
//                                ffn_gamma, ffn_beta, hidden_weight, hidden_bias, out_map_weight, out_map_bias;
//                num_layers, num_heads, precision, activation, last_only) -> out
//
//   hidden = embed[token] + pos_embed[place in the text]
//   for each layer:
//     attended = hidden + attention(LayerNorm(hidden)) out_weight^T + out_bias
//     hidden = attended + gelu(LayerNorm(attended) hidden_weight^T + hidden_bias) out_map_weight^T + out_map_bias
//   out = LayerNorm(hidden)
//
// tokens (M,) int32 are R runs, one after another; a row of runs (R, 3) int32 says of a run (slot, position, tokens), as
// in kogpt2_attention_step (attention_cached.cc). embed (V, C), pos_embed (max_length, C). The caches are those of
// kogpt2_attention_step and are written in place. Weights are as kogpt2_decode_linear takes them (decode_linear.cc). out
// is (M, C), or with last_only=1 (R, C), of the last token of each run: keys and values of the other tokens are all that
// a last layer is needed for.
//
// What a run becomes does not depend on the rest of the pass, to the last bit: short runs are one product, by a kernel
// whose sums do not depend on the number of rows, and each long one is a product of its own. There is no gradient.
//
// This is one operator because asking MXNet for an operator of 16 arrays takes 100 us of a processor's time, as long as a
// third of a layer computes.
#include <algorithm>

#include "attention_cached.h"
#include "decode_linear.h"
#include "layer_norm_row.h"
#include "scratch.h"
#include "threads.h"

namespace kogpt2 {
namespace {

// The arrays of a layer, in the order of the operator's inputs.
enum LayerInput {
  kKeyCache, kValueCache,
  kAttnGamma, kAttnBeta, kQkvWeight, kQkvBias, kOutWeight, kOutBias,
  kFfnGamma, kFfnBeta, kHiddenWeight, kHiddenBias, kOutMapWeight, kOutMapBias,
  kLayerInputs
};

// What all layers of a pass have in common.
struct Pass {
  std::vector<Run> runs;
  std::vector<Part> parts, ends;  // the rows of each run, and the one row that is left of it for Rows::kLast
  int64_t M, C, num_heads;
  Precision precision;
  Activation activation;

  int64_t R() const { return static_cast<int64_t>(runs.size()); }
};

// One layer, whose arrays begin with input `first` of the call.
class Layer {
 public:
  Layer(const ForwardCall& call, size_t first, const Pass& pass) : call_(call), first_(first), pass_(pass) {}

  // hidden (M, C); out (M, C), or (R, C) for Rows::kLast.
  void run(const float* hidden, Rows rows, float* out) const {
    const Pass& pass = pass_;
    const bool last = rows == Rows::kLast;
    const int64_t C = pass.C, W = last ? pass.R() : pass.M, inner_size = input(kHiddenBias).shape[0];
    const std::vector<Part>& wanted = last ? pass.ends : pass.parts;
    Buffer<float> qkv(pass.M * 3 * C), context(W * C), ends(last ? W * C : 1), attended(W * C), inner(W * inner_size);

    map(hidden, pass.parts, C, 3 * C, kQkvWeight, {values(kAttnGamma), values(kAttnBeta)}, {values(kQkvBias)},
        qkv.data());
    attend_runs(pass.precision, qkv.data(), pass.num_heads, C / pass.num_heads, pass.runs, input(kKeyCache),
                input(kValueCache), rows, context.data());
    const float* const residual = last ? last_rows(hidden, ends.data()) : hidden;
    map(context.data(), wanted, C, C, kOutWeight, {}, {values(kOutBias), residual}, attended.data());
    map(attended.data(), wanted, C, inner_size, kHiddenWeight, {values(kFfnGamma), values(kFfnBeta)},
        {values(kHiddenBias), nullptr, pass.activation}, inner.data());
    map(inner.data(), wanted, inner_size, C, kOutMapWeight, {}, {values(kOutMapBias), attended.data()}, out);
  }

 private:
  MXTensor& input(LayerInput which) const { return call_.input(first_ + which); }
  const float* values(LayerInput which) const { return floats(input(which)); }

  void map(const float* data, const std::vector<Part>& parts, int64_t K, int64_t N, LayerInput weight,
           const Normalization& normalization, const Epilogue& epilogue, float* out) const {
    decode_linear(data, parts, K, N, input(weight), pass_.precision, normalization, epilogue, out);
  }

  // Copies the row of each run's last token to `to`, and returns `to`.
  const float* last_rows(const float* hidden, float* to) const {
    for (int64_t r = 0; r < pass_.R(); ++r) {
      const Run& run = pass_.runs[r];
      std::copy_n(hidden + (run.begin + run.count - 1) * pass_.C, pass_.C, to + r * pass_.C);
    }
    return to;
  }

  const ForwardCall& call_;
  size_t first_;
  const Pass& pass_;
};

struct Decoder : NoGradient {
  enum Input { kTokens, kRuns, kEmbed, kPosEmbed, kFinalGamma, kFinalBeta, kLayers };
  enum Output { kOut };
  int64_t num_layers, num_heads;
  Precision precision;
  Activation activation;
  Rows rows;

  explicit Decoder(const Attributes& attributes)
      : num_layers(attributes.integer("num_layers", 1)),
        num_heads(attributes.integer("num_heads", 1)),
        precision(precision_of(attributes)),
        activation(activation_of(attributes, "gelu")),
        rows(attributes.integer("last_only", 0, 0) ? Rows::kLast : Rows::kAll) {}

  Arrays inputs() const {
    static const Array kLayer[kLayerInputs] = {
        {"key_cache", 'w'},     {"value_cache", 'w'}, {"attn_gamma", 'f'},     {"attn_beta", 'f'},   {"qkv_weight", 'w'},
        {"qkv_bias", 'f'},      {"out_weight", 'w'},  {"out_bias", 'f'},       {"ffn_gamma", 'f'},   {"ffn_beta", 'f'},
        {"hidden_weight", 'w'}, {"hidden_bias", 'f'}, {"out_map_weight", 'w'}, {"out_map_bias", 'f'}};
    Arrays all = {{"tokens", 'i'},    {"runs", 'i'},        {"embed", 'f'},
                  {"pos_embed", 'f'}, {"final_gamma", 'f'}, {"final_beta", 'f'}};
    all.reserve(first_of(num_layers));
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      for (const Array& each : kLayer) all.push_back({each.name, each.type, layer});
    }
    return all;
  }
  Arrays outputs() const { return {{"out", 'f'}}; }
  std::vector<int> written_inputs() const {
    std::vector<int> indices;
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      for (const LayerInput cache : {kKeyCache, kValueCache}) {
        indices.push_back(static_cast<int>(first_of(layer) + cache));
      }
    }
    return indices;
  }

  void shape(ShapeInference& shapes) const {
    const unsigned M = shapes.input(kTokens, 1)[0], C = shapes.input(kEmbed, 2)[1];
    const Shape runs = shapes.input(kRuns, 2);
    shapes.settle(kPosEmbed, {shapes.input(kPosEmbed, 2)[0], C});
    for (const Input each : {kFinalGamma, kFinalBeta}) shapes.settle(each, {C});
    const AttentionSizes s = attention_sizes(Shape{1, M, 3 * C}, num_heads);
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      const size_t first = first_of(layer);
      settle_caches(shapes, 1, s, first + kKeyCache, first + kValueCache, kRuns);
      for (const LayerInput each : {kAttnGamma, kAttnBeta, kFfnGamma, kFfnBeta}) shapes.settle(first + each, {C});
      const unsigned inner = shapes.input(first + kHiddenBias, 1)[0];
      const auto settle_map = [&](LayerInput weight, LayerInput bias, unsigned N, unsigned K) {
        settle_weight(shapes, first + weight, N, K);
        shapes.settle(first + bias, {N});
      };
      settle_map(kQkvWeight, kQkvBias, 3 * C, C);
      settle_map(kOutWeight, kOutBias, C, C);
      settle_map(kHiddenWeight, kHiddenBias, inner, C);
      settle_map(kOutMapWeight, kOutMapBias, C, inner);
    }
    shapes.output(kOut) = {rows == Rows::kLast ? runs[0] : M, C};
  }

  void forward(const ForwardCall& call) const {
    const int64_t M = call.input(kTokens).shape[0], C = call.input(kEmbed).shape[1];
    Pass pass = {runs_of(call.input(kRuns), 1, M, call.input(kLayers + kKeyCache)),
                 {}, {}, M, C, num_heads, precision, activation};
    for (const Run& run : pass.runs) {
      pass.ends.push_back({static_cast<int64_t>(pass.parts.size()), 1});
      pass.parts.push_back({run.begin, run.count});
    }
    Buffer<float> one(M * C), other(M * C);
    float *hidden = one.data(), *next = other.data();
    embed(call, pass, hidden);
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      const bool is_last = layer == num_layers - 1;
      Layer(call, first_of(layer), pass).run(hidden, is_last ? rows : Rows::kAll, next);
      std::swap(hidden, next);
    }
    const int64_t W = rows == Rows::kLast ? pass.R() : M;
    const float *const gamma = floats(call.input(kFinalGamma)), *const beta = floats(call.input(kFinalBeta));
    float* const out = floats(call.output(kOut));
#pragma omp parallel for schedule(static) if (worth_threads(W * C * kElementary))
    for (int64_t m = 0; m < W; ++m) normalize_row(hidden + m * C, gamma, beta, C, kEpsilon, out + m * C);
  }

 private:
  static size_t first_of(int64_t layer) { return kLayers + static_cast<size_t>(layer) * kLayerInputs; }

  static void embed(const ForwardCall& call, const Pass& pass, float* hidden) {
    const Ids tokens(call.input(kTokens));
    MXTensor &table = call.input(kEmbed), &pos_table = call.input(kPosEmbed);
    for (const Run& run : pass.runs) {
      const int64_t last = run.position + run.count - 1;
      if (last >= pos_table.shape[0]) fail("place ", last, " of a text is beyond ", pos_table.shape[0], " positions");
      for (int64_t t = 0; t < run.count; ++t) {
        const float* const row = floats(table) + tokens.at(run.begin + t, table.shape[0]) * pass.C;
        const float* const pos = floats(pos_table) + (run.position + t) * pass.C;
        float* const to = hidden + (run.begin + t) * pass.C;
#pragma omp simd
        for (int64_t c = 0; c < pass.C; ++c) to[c] = row[c] + pos[c];
      }
    }
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_decoder, Decoder);

}  // namespace kogpt2
