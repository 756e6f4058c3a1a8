// The operators of launch.h as MXNet's. The signature of each one is above it, the mathematics is in launch.h. T is
// float32 or float16. `seed` (64,) float32 is Dropout(ones(64), p=0.5) of the graph. Attributes: p, the probability of
// being dropped; site, a number that no other dropout of the network has; req, the request for each input's gradient,
// such as "write,add,null".
#include "../common/dropout_attributes.h"
#include "../common/philox.h"
#include "cuda_operator.h"

namespace kogpt2 {
namespace {

// The dropout of one call, made ready on the device.
struct Mask : DropoutAttributes {
  using DropoutAttributes::DropoutAttributes;

  int64_t bytes() const { return probability > 0.0 ? kogpt2_cuda_dropout_size() : 0; }

  // A null pointer where nothing is dropped; `at` has bytes() bytes.
  const void* decode(MXTensor& seed, void* at, cudaStream_t stream) const {
    if (probability == 0.0) return nullptr;
    check(kogpt2_cuda_decode_seed(seed.data<float>(), probability, site, at, stream));
    return at;
  }
};

// kogpt2_cuda_bias_gelu(data (..., N) T, bias (N,) T, seed; p, site, req) -> out (..., N) T
struct BiasGelu {
  enum Input { kData, kBias, kSeed };
  enum Output { kOut };
  Mask mask;

  explicit BiasGelu(const Attributes& attributes) : mask(attributes) {}

  Arrays inputs() const { return {{"data", 'T'}, {"bias", 'T'}, {"seed", 'f'}}; }
  Arrays outputs() const { return {{"out", 'T'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape data = shapes.input(kData);
    shapes.settle(kBias, {data.back()});
    shapes.settle(kSeed, {kSeedSize});
    shapes.output(kOut) = data;
  }

  void forward(const ForwardCall& call) const {
    const cudaStream_t stream = stream_of(call.resource);
    MXTensor& data = call.input(kData);
    const Workspace workspace(call.resource, {mask.bytes()});
    const void* dropout = mask.decode(call.input(kSeed), workspace[0], stream);
    check(kogpt2_cuda_bias_gelu_forward(data.data_ptr, call.input(kBias).data_ptr, call.output(kOut).data_ptr,
                                        num_rows(data), data.shape.back(), storage_of(data), dropout, stream));
  }

  void backward(const BackwardCall& call) const {
    const cudaStream_t stream = stream_of(call.resource);
    MXTensor& data = call.input(kData);
    const int64_t rows = num_rows(data), columns = data.shape.back();
    const Workspace workspace(call.resource, {mask.bytes(), kogpt2_cuda_bias_gelu_workspace(rows, columns)});
    const void* dropout = mask.decode(call.input(kSeed), workspace[0], stream);
    check(kogpt2_cuda_bias_gelu_backward(data.data_ptr, call.input(kBias).data_ptr, call.output_gradient(kOut).data_ptr,
                                         call.gradient(kData).data_ptr, call.gradient(kBias).data_ptr,
                                         request_code(call, kData), request_code(call, kBias), rows, columns,
                                         storage_of(data), dropout, workspace[1], stream));
    write_zeros(call, kSeed);
  }
};

// kogpt2_cuda_bias_dropout_residual(data (..., N) T, bias (N,) T, residual (..., N) T, seed; p, site, req)
//   -> out (..., N) T
struct BiasDropoutResidual {
  enum Input { kData, kBias, kResidual, kSeed };
  enum Output { kOut };
  Mask mask;

  explicit BiasDropoutResidual(const Attributes& attributes) : mask(attributes) {}

  Arrays inputs() const { return {{"data", 'T'}, {"bias", 'T'}, {"residual", 'T'}, {"seed", 'f'}}; }
  Arrays outputs() const { return {{"out", 'T'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape data = shapes.input(kData);
    shapes.settle(kBias, {data.back()});
    shapes.settle(kResidual, data);
    shapes.settle(kSeed, {kSeedSize});
    shapes.output(kOut) = data;
  }

  void forward(const ForwardCall& call) const {
    const cudaStream_t stream = stream_of(call.resource);
    MXTensor& data = call.input(kData);
    const Workspace workspace(call.resource, {mask.bytes()});
    const void* dropout = mask.decode(call.input(kSeed), workspace[0], stream);
    check(kogpt2_cuda_bias_dropout_residual_forward(
        data.data_ptr, call.input(kBias).data_ptr, call.input(kResidual).data_ptr, call.output(kOut).data_ptr,
        num_rows(data), data.shape.back(), storage_of(data), dropout, stream));
  }

  void backward(const BackwardCall& call) const {
    const cudaStream_t stream = stream_of(call.resource);
    MXTensor& data = call.input(kData);
    const int64_t rows = num_rows(data), columns = data.shape.back();
    const Workspace workspace(call.resource,
                              {mask.bytes(), kogpt2_cuda_bias_dropout_residual_workspace(rows, columns)});
    const void* dropout = mask.decode(call.input(kSeed), workspace[0], stream);
    check(kogpt2_cuda_bias_dropout_residual_backward(
        call.output_gradient(kOut).data_ptr, call.gradient(kData).data_ptr, call.gradient(kBias).data_ptr,
        call.gradient(kResidual).data_ptr, request_code(call, kData), request_code(call, kBias),
        request_code(call, kResidual), rows, columns, storage_of(data), dropout, workspace[1], stream));
    write_zeros(call, kSeed);
  }
};

// kogpt2_cuda_layer_norm(data (..., N) T, gamma (N,) T, beta (N,) T; epsilon=1e-5, req)
//   -> out (..., N) T, mean (...) float32, inverse_std (...) float32
struct LayerNorm {
  enum Input { kData, kGamma, kBeta };
  enum Output { kOut, kMean, kInverseStd };
  float epsilon;

  explicit LayerNorm(const Attributes& attributes) : epsilon(static_cast<float>(attributes.number("epsilon", 1e-5))) {}

  Arrays inputs() const { return {{"data", 'T'}, {"gamma", 'T'}, {"beta", 'T'}}; }
  Arrays outputs() const { return {{"out", 'T'}, {"mean", 'f'}, {"inverse_std", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape data = shapes.input(kData);
    if (data.size() < 2) shapes.refuse(kData, "at least two axes");
    shapes.settle(kGamma, {data.back()});
    shapes.settle(kBeta, {data.back()});
    shapes.output(kOut) = data;
    shapes.output(kMean) = shapes.output(kInverseStd) = without_last(data);
  }

  void forward(const ForwardCall& call) const {
    MXTensor& data = call.input(kData);
    check(kogpt2_cuda_layer_norm_forward(
        data.data_ptr, call.input(kGamma).data_ptr, call.input(kBeta).data_ptr, call.output(kOut).data_ptr,
        call.output(kMean).data<float>(), call.output(kInverseStd).data<float>(), epsilon, num_rows(data),
        data.shape.back(), storage_of(data), stream_of(call.resource)));
  }

  void backward(const BackwardCall& call) const {
    MXTensor& data = call.input(kData);
    const int64_t rows = num_rows(data), columns = data.shape.back();
    const Workspace workspace(call.resource, {kogpt2_cuda_layer_norm_workspace(rows, columns)});
    check(kogpt2_cuda_layer_norm_backward(
        data.data_ptr, call.input(kGamma).data_ptr, call.output_gradient(kOut).data_ptr,
        call.output(kMean).data<float>(), call.output(kInverseStd).data<float>(), call.gradient(kData).data_ptr,
        call.gradient(kGamma).data_ptr, call.gradient(kBeta).data_ptr, request_code(call, kData),
        request_code(call, kGamma), request_code(call, kBeta), rows, columns, storage_of(data), workspace[0],
        stream_of(call.resource)));
  }
};

// kogpt2_cuda_causal_softmax(scores (..., queries, keys) T, seed; scale=1, p, site, req)
//   -> out (..., queries, keys) T, log_sum (..., queries) float32
struct CausalSoftmax {
  enum Input { kScores, kSeed };
  enum Output { kOut, kLogSum };
  Mask mask;
  float scale;

  explicit CausalSoftmax(const Attributes& attributes)
      : mask(attributes), scale(static_cast<float>(attributes.number("scale", 1.0))) {}

  Arrays inputs() const { return {{"scores", 'T'}, {"seed", 'f'}}; }
  Arrays outputs() const { return {{"out", 'T'}, {"log_sum", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape scores = shapes.input(kScores);
    const size_t axes = scores.size();
    if (axes < 2 || scores[axes - 1] < scores[axes - 2]) {
      shapes.refuse(kScores, "(..., queries, keys) with at least as many keys as queries");
    }
    shapes.settle(kSeed, {kSeedSize});
    shapes.output(kOut) = scores;
    shapes.output(kLogSum) = without_last(scores);
  }

  void forward(const ForwardCall& call) const {
    const cudaStream_t stream = stream_of(call.resource);
    MXTensor& scores = call.input(kScores);
    const Workspace workspace(call.resource, {mask.bytes()});
    const void* dropout = mask.decode(call.input(kSeed), workspace[0], stream);
    check(kogpt2_cuda_causal_softmax_forward(
        scores.data_ptr, call.output(kOut).data_ptr, call.output(kLogSum).data<float>(), scale, leading(scores, 2),
        num_queries(scores), scores.shape.back(), storage_of(scores), dropout, stream));
  }

  void backward(const BackwardCall& call) const {
    const cudaStream_t stream = stream_of(call.resource);
    MXTensor& scores = call.input(kScores);
    const Workspace workspace(call.resource, {mask.bytes()});
    const void* dropout = mask.decode(call.input(kSeed), workspace[0], stream);
    check(kogpt2_cuda_causal_softmax_backward(
        scores.data_ptr, call.output_gradient(kOut).data_ptr, call.output(kLogSum).data<float>(),
        call.gradient(kScores).data_ptr, request_code(call, kScores), scale, leading(scores, 2), num_queries(scores),
        scores.shape.back(), storage_of(scores), dropout, stream));
    write_zeros(call, kSeed);
  }

  static int64_t num_queries(const MXTensor& scores) { return scores.shape[scores.shape.size() - 2]; }
};

// kogpt2_cuda_cross_entropy(logits (..., V) T, labels (...) int32; req) -> loss (...) float32, log_sum (...) float32
struct CrossEntropy {
  enum Input { kLogits, kLabels };
  enum Output { kLoss, kLogSum };

  explicit CrossEntropy(const Attributes&) {}

  Arrays inputs() const { return {{"logits", 'T'}, {"labels", 'i'}}; }
  Arrays outputs() const { return {{"loss", 'f'}, {"log_sum", 'f'}}; }

  void shape(ShapeInference& shapes) const {
    const Shape logits = shapes.input(kLogits);
    if (logits.size() < 2) shapes.refuse(kLogits, "at least two axes");
    const Shape rows = without_last(logits);
    shapes.settle(kLabels, rows);
    shapes.output(kLoss) = shapes.output(kLogSum) = rows;
  }

  void forward(const ForwardCall& call) const {
    MXTensor& logits = call.input(kLogits);
    check(kogpt2_cuda_cross_entropy_forward(logits.data_ptr, call.input(kLabels).data<int32_t>(),
                                            call.output(kLoss).data<float>(), call.output(kLogSum).data<float>(),
                                            num_rows(logits), logits.shape.back(), storage_of(logits),
                                            stream_of(call.resource)));
  }

  void backward(const BackwardCall& call) const {
    MXTensor& logits = call.input(kLogits);
    check(kogpt2_cuda_cross_entropy_backward(
        logits.data_ptr, call.input(kLabels).data<int32_t>(), call.output(kLogSum).data<float>(),
        call.output_gradient(kLoss).data<float>(), call.gradient(kLogits).data_ptr, request_code(call, kLogits),
        num_rows(logits), logits.shape.back(), storage_of(logits), stream_of(call.resource)));
    write_zeros(call, kLabels);
  }
};

}  // namespace

KOGPT2_CUDA_OPERATOR(kogpt2_cuda_bias_gelu, BiasGelu);
KOGPT2_CUDA_OPERATOR(kogpt2_cuda_bias_dropout_residual, BiasDropoutResidual);
KOGPT2_CUDA_OPERATOR(kogpt2_cuda_layer_norm, LayerNorm);
KOGPT2_CUDA_OPERATOR(kogpt2_cuda_causal_softmax, CausalSoftmax);
KOGPT2_CUDA_OPERATOR(kogpt2_cuda_cross_entropy, CrossEntropy);

}  // namespace kogpt2

mxnet::ext::MXReturnValue initialize(int version) { return kogpt2::check_version(version); }
