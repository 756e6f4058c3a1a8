// The operators of launch.h as MXNet's, for the GPU: what each takes and gives stands above it, the mathematics in
// launch.h. T is float32 or float16. `seed` (64,) float32 is Dropout(ones(64), p=0.5) of the graph. Attributes: p, the
// probability of being dropped; site, which dropout of the network; req, what is wanted of each input's gradient, such
// as "write,add,null".
#include "../common/philox.h"
#include "mxnet_operator.h"

namespace kogpt2 {
namespace {

// The attributes p and site, and the seed made ready on the device.
struct Mask {
  double probability;
  uint32_t site;

  explicit Mask(const Attributes& attributes)
      : probability(attributes.number("p", 0.0)), site(static_cast<uint32_t>(attributes.integer("site", 0, 0))) {
    if (!(probability >= 0.0 && probability < 1.0)) fail("p=", probability, " is not from 0 to below 1");
  }

  int64_t bytes() const { return probability > 0.0 ? kogpt2_cuda_dropout_size() : 0; }

  // Null where nothing is dropped; `at` has bytes() bytes.
  const void* decode(MXTensor& seed, void* at, cudaStream_t stream) const {
    if (probability == 0.0) return nullptr;
    check(kogpt2_cuda_decode_seed(seed.data<float>(), probability, site, at, stream));
    return at;
  }
};

// kogpt2_cuda_bias_gelu(data (..., N) T, bias (N,) T, seed; p, site, req) -> out (..., N) T
struct BiasGelu {
  Mask mask;
  explicit BiasGelu(const Attributes& attributes) : mask(attributes) {}
  std::string inputs() const { return "TTf"; }
  std::string outputs() const { return "T"; }

  void shape(Shapes& in, Shapes& out) const {
    settle("bias", in[1], {in[0].back()});
    settle("seed", in[2], {kSeedSize});
    out[0] = in[0];
  }

  void forward(Tensors& in, Tensors& out, const OpResource& resource) const {
    const cudaStream_t stream = stream_of(resource);
    const Workspace workspace(resource, {mask.bytes()});
    const void* dropout = mask.decode(in[2], workspace[0], stream);
    check(kogpt2_cuda_bias_gelu_forward(in[0].data_ptr, in[1].data_ptr, out[0].data_ptr, num_rows(in[0]),
                                        in[0].shape.back(), storage_of(in[0]), dropout, stream));
  }

  void backward(Tensors& in, Tensors& gradients, const std::vector<int>& requests, const OpResource& resource) const {
    const cudaStream_t stream = stream_of(resource);
    const int64_t rows = num_rows(in[1]), columns = in[1].shape.back();
    const Workspace workspace(resource, {mask.bytes(), kogpt2_cuda_bias_gelu_workspace(rows, columns)});
    const void* dropout = mask.decode(in[3], workspace[0], stream);
    check(kogpt2_cuda_bias_gelu_backward(in[1].data_ptr, in[2].data_ptr, in[0].data_ptr, gradients[0].data_ptr,
                                         gradients[1].data_ptr, requests[0], requests[1], rows, columns,
                                         storage_of(in[1]), dropout, workspace[1], stream));
    write_zeros(gradients[2], requests[2], stream);
  }
};

// kogpt2_cuda_bias_dropout_residual(data (..., N) T, bias (N,) T, residual (..., N) T, seed; p, site, req)
//   -> out (..., N) T
struct BiasDropoutResidual {
  Mask mask;
  explicit BiasDropoutResidual(const Attributes& attributes) : mask(attributes) {}
  std::string inputs() const { return "TTTf"; }
  std::string outputs() const { return "T"; }

  void shape(Shapes& in, Shapes& out) const {
    settle("bias", in[1], {in[0].back()});
    settle("residual", in[2], in[0]);
    settle("seed", in[3], {kSeedSize});
    out[0] = in[0];
  }

  void forward(Tensors& in, Tensors& out, const OpResource& resource) const {
    const cudaStream_t stream = stream_of(resource);
    const Workspace workspace(resource, {mask.bytes()});
    const void* dropout = mask.decode(in[3], workspace[0], stream);
    check(kogpt2_cuda_bias_dropout_residual_forward(in[0].data_ptr, in[1].data_ptr, in[2].data_ptr, out[0].data_ptr,
                                                    num_rows(in[0]), in[0].shape.back(), storage_of(in[0]), dropout,
                                                    stream));
  }

  void backward(Tensors& in, Tensors& gradients, const std::vector<int>& requests, const OpResource& resource) const {
    const cudaStream_t stream = stream_of(resource);
    const int64_t rows = num_rows(in[1]), columns = in[1].shape.back();
    const Workspace workspace(resource,
                              {mask.bytes(), kogpt2_cuda_bias_dropout_residual_workspace(rows, columns)});
    const void* dropout = mask.decode(in[4], workspace[0], stream);
    check(kogpt2_cuda_bias_dropout_residual_backward(in[0].data_ptr, gradients[0].data_ptr, gradients[1].data_ptr,
                                                     gradients[2].data_ptr, requests[0], requests[1], requests[2], rows,
                                                     columns, storage_of(in[1]), dropout, workspace[1], stream));
    write_zeros(gradients[3], requests[3], stream);
  }
};

// kogpt2_cuda_layer_norm(data (..., N) T, gamma (N,) T, beta (N,) T; epsilon=1e-5, req)
//   -> out (..., N) T, mean (...) float32, inverse_std (...) float32
struct LayerNorm {
  float epsilon;
  explicit LayerNorm(const Attributes& attributes) : epsilon(static_cast<float>(attributes.number("epsilon", 1e-5))) {}
  std::string inputs() const { return "TTT"; }
  std::string outputs() const { return "Tff"; }

  void shape(Shapes& in, Shapes& out) const {
    if (in[0].size() < 2) fail("data has shape ", to_text(in[0]), ", expected at least two axes");
    settle("gamma", in[1], {in[0].back()});
    settle("beta", in[2], {in[0].back()});
    out[0] = in[0];
    out[1] = out[2] = without_last(in[0]);
  }

  void forward(Tensors& in, Tensors& out, const OpResource& resource) const {
    check(kogpt2_cuda_layer_norm_forward(in[0].data_ptr, in[1].data_ptr, in[2].data_ptr, out[0].data_ptr,
                                         out[1].data<float>(), out[2].data<float>(), epsilon, num_rows(in[0]),
                                         in[0].shape.back(), storage_of(in[0]), stream_of(resource)));
  }

  void backward(Tensors& in, Tensors& gradients, const std::vector<int>& requests, const OpResource& resource) const {
    constexpr int kData = 3, kOut = 6;  // behind the gradients of three outputs; behind three inputs
    const int64_t rows = num_rows(in[kData]), columns = in[kData].shape.back();
    const Workspace workspace(resource, {kogpt2_cuda_layer_norm_workspace(rows, columns)});
    check(kogpt2_cuda_layer_norm_backward(in[kData].data_ptr, in[kData + 1].data_ptr, in[0].data_ptr,
                                          in[kOut + 1].data<float>(), in[kOut + 2].data<float>(), gradients[0].data_ptr,
                                          gradients[1].data_ptr, gradients[2].data_ptr, requests[0], requests[1],
                                          requests[2], rows, columns, storage_of(in[kData]), workspace[0],
                                          stream_of(resource)));
  }
};

// kogpt2_cuda_causal_softmax(scores (..., queries, keys) T, seed; scale=1, p, site, req)
//   -> out (..., queries, keys) T, log_sum (..., queries) float32
struct CausalSoftmax {
  Mask mask;
  float scale;
  explicit CausalSoftmax(const Attributes& attributes)
      : mask(attributes), scale(static_cast<float>(attributes.number("scale", 1.0))) {}
  std::string inputs() const { return "Tf"; }
  std::string outputs() const { return "Tf"; }

  void shape(Shapes& in, Shapes& out) const {
    const size_t axes = in[0].size();
    if (axes < 2 || in[0][axes - 1] < in[0][axes - 2]) {
      fail("scores has shape ", to_text(in[0]), ", expected (..., queries, keys), at least as many keys as queries");
    }
    settle("seed", in[1], {kSeedSize});
    out[0] = in[0];
    out[1] = without_last(in[0]);
  }

  void forward(Tensors& in, Tensors& out, const OpResource& resource) const {
    const cudaStream_t stream = stream_of(resource);
    const Workspace workspace(resource, {mask.bytes()});
    const void* dropout = mask.decode(in[1], workspace[0], stream);
    check(kogpt2_cuda_causal_softmax_forward(in[0].data_ptr, out[0].data_ptr, out[1].data<float>(), scale,
                                             leading(in[0], 2), queries(in[0]), in[0].shape.back(), storage_of(in[0]),
                                             dropout, stream));
  }

  void backward(Tensors& in, Tensors& gradients, const std::vector<int>& requests, const OpResource& resource) const {
    const cudaStream_t stream = stream_of(resource);
    MXTensor& scores = in[2];  // behind the gradients of two outputs
    const Workspace workspace(resource, {mask.bytes()});
    const void* dropout = mask.decode(in[3], workspace[0], stream);
    check(kogpt2_cuda_causal_softmax_backward(scores.data_ptr, in[0].data_ptr, in[5].data<float>(),
                                              gradients[0].data_ptr, requests[0], scale, leading(scores, 2),
                                              queries(scores), scores.shape.back(), storage_of(scores), dropout,
                                              stream));
    write_zeros(gradients[1], requests[1], stream);
  }

  static int64_t queries(const MXTensor& scores) { return scores.shape[scores.shape.size() - 2]; }
};

// kogpt2_cuda_cross_entropy(logits (..., V) T, labels (...) int32; req) -> loss (...) float32, log_sum (...) float32
struct CrossEntropy {
  explicit CrossEntropy(const Attributes&) {}
  std::string inputs() const { return "Ti"; }
  std::string outputs() const { return "ff"; }

  void shape(Shapes& in, Shapes& out) const {
    if (in[0].size() < 2) fail("logits has shape ", to_text(in[0]), ", expected at least two axes");
    settle("labels", in[1], without_last(in[0]));
    out[0] = out[1] = in[1];
  }

  void forward(Tensors& in, Tensors& out, const OpResource& resource) const {
    check(kogpt2_cuda_cross_entropy_forward(in[0].data_ptr, in[1].data<int32_t>(), out[0].data<float>(),
                                            out[1].data<float>(), num_rows(in[0]), in[0].shape.back(),
                                            storage_of(in[0]), stream_of(resource)));
  }

  void backward(Tensors& in, Tensors& gradients, const std::vector<int>& requests, const OpResource& resource) const {
    MXTensor &logits = in[2], &labels = in[3], &log_sum = in[5];
    check(kogpt2_cuda_cross_entropy_backward(logits.data_ptr, labels.data<int32_t>(), log_sum.data<float>(),
                                             in[0].data<float>(), gradients[0].data_ptr, requests[0], num_rows(logits),
                                             logits.shape.back(), storage_of(logits), stream_of(resource)));
    write_zeros(gradients[1], requests[1], stream_of(resource));
  }
};

}  // namespace

KOGPT2_CUDA_OPERATOR(kogpt2_cuda_bias_gelu, BiasGelu).setBackward(Operator<BiasGelu>::backward, KOGPT2_DEVICE);
KOGPT2_CUDA_OPERATOR(kogpt2_cuda_bias_dropout_residual, BiasDropoutResidual)
    .setBackward(Operator<BiasDropoutResidual>::backward, KOGPT2_DEVICE);
KOGPT2_CUDA_OPERATOR(kogpt2_cuda_layer_norm, LayerNorm).setBackward(Operator<LayerNorm>::backward, KOGPT2_DEVICE);
KOGPT2_CUDA_OPERATOR(kogpt2_cuda_causal_softmax, CausalSoftmax)
    .setBackward(Operator<CausalSoftmax>::backward, KOGPT2_DEVICE);
KOGPT2_CUDA_OPERATOR(kogpt2_cuda_cross_entropy, CrossEntropy)
    .setBackward(Operator<CrossEntropy>::backward, KOGPT2_DEVICE);

}  // namespace kogpt2

mxnet::ext::MXReturnValue initialize(int version) {
  if (version >= 10900 && version < 20000) return mxnet::ext::MX_SUCCESS;
  MX_ERROR_MSG << "these operators are for MXNet 1.9, not " << version;
  return mxnet::ext::MX_FAIL;
}
