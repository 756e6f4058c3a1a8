/* What the GPU operators need beside the library interface: shapes, types, workspace, registration.
 *
 * MXNet's memory for an operator is one piece, which a second request makes invalid: Workspace asks once.
 */
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <vector>

#include "../common/library_interface.h"
#include "launch.h"

namespace kogpt2 {

inline void check(int error) {
  if (error != cudaSuccess) fail("CUDA: ", kogpt2_cuda_error_text(error));
}

// ---- shapes ---------------------------------------------------------------------------------------------------------

// An input whose shape follows from another's: filled in, or compared.
inline void settle(const char* name, Shape& shape, const Shape& wanted) {
  if (!is_known(shape)) shape = wanted;
  if (shape != wanted) fail(name, " has shape ", to_text(shape), ", expected ", to_text(wanted));
}

inline Shape without_last(const Shape& shape) { return Shape(shape.begin(), shape.end() - 1); }

// ---- types ----------------------------------------------------------------------------------------------------------

// Types are written as a letter for each array: T the operator's storage type, float32 or float16; f float32; h
// float16; d float64; i int32.
inline int fixed_type(char letter) {
  switch (letter) {
    case 'f': return mxnet::ext::kFloat32;
    case 'h': return mxnet::ext::kFloat16;
    case 'd': return mxnet::ext::kFloat64;
    default: return mxnet::ext::kInt32;
  }
}

inline const char* type_name(char letter) {
  switch (letter) {
    case 'T': return "float32 or float16, the same for all of its kind";
    case 'f': return "float32";
    case 'h': return "float16";
    case 'd': return "float64";
    default: return "int32";
  }
}

inline void settle_types(const std::string& inputs, const std::string& outputs, std::vector<int>& in,
                         std::vector<int>& out) {
  int storage = -1;
  for (size_t i = 0; i < in.size(); ++i) {
    if (inputs[i] == 'T' && storage < 0) storage = in[i];
  }
  for (size_t i = 0; i < in.size(); ++i) {
    const int wanted = inputs[i] == 'T' ? storage : fixed_type(inputs[i]);
    if (in[i] < 0) in[i] = wanted;
    const bool storable = storage < 0 || storage == mxnet::ext::kFloat32 || storage == mxnet::ext::kFloat16;
    if (in[i] != wanted || (inputs[i] == 'T' && !storable)) {
      fail("input ", i, " has MXNet's type number ", in[i], ", expected ", type_name(inputs[i]));
    }
  }
  for (size_t i = 0; i < out.size(); ++i) out[i] = outputs[i] == 'T' ? storage : fixed_type(outputs[i]);
}

inline int storage_of(const MXTensor& tensor) {
  return tensor.dtype == mxnet::ext::kFloat16 ? KOGPT2_FLOAT16 : KOGPT2_FLOAT32;
}

// ---- device memory --------------------------------------------------------------------------------------------------

// Device memory for the time of one call, asked for as one piece and dealt out in parts.
class Workspace {
 public:
  Workspace(const OpResource& resource, std::initializer_list<int64_t> parts) {
    int64_t total = 0;
    for (int64_t bytes : parts) {
      offsets_.push_back(total);
      total += (bytes + 255) / 256 * 256;
    }
    if (total > INT_MAX) fail("a workspace of ", total, " bytes, and MXNet gives at most ", INT_MAX, ": take a smaller batch");
    base_ = total > 0 ? static_cast<char*>(resource.alloc_gpu(static_cast<int>(total))) : nullptr;
  }

  void* operator[](size_t part) const { return base_ + offsets_[part]; }

 private:
  char* base_;
  std::vector<int64_t> offsets_;
};

inline cudaStream_t stream_of(const OpResource& resource) {
  return static_cast<cudaStream_t>(static_cast<void*>(resource.get_cuda_stream()));
}

// The gradient of an input that has none: zeros where it is to be written.
inline void write_zeros(MXTensor& gradient, int request, cudaStream_t stream) {
  const size_t bytes = static_cast<size_t>(gradient.size()) * (gradient.dtype == mxnet::ext::kFloat16 ? 2 : 4);
  if (request == KOGPT2_WRITE) check(cudaMemsetAsync(gradient.data_ptr, 0, bytes, stream));
}

// Requests as launch.h has them.
inline std::vector<int> request_codes(const std::vector<Request>& requests) {
  std::vector<int> codes;
  for (const Request request : requests) {
    codes.push_back(request == Request::kNull ? KOGPT2_NULL : request == Request::kWrite ? KOGPT2_WRITE : KOGPT2_ADD);
  }
  return codes;
}

// ---- calls ----------------------------------------------------------------------------------------------------------

// An Op is made of the attributes, which it checks. It has inputs() and outputs(), the types of its arrays as letters;
// shape(in, out), called when in[0] is known; forward(in, out, resource); and
// backward(in, gradients, requests, resource), whose `in` are the gradients of the outputs, the inputs, the outputs.
template <typename Op>
struct Operator {
  static MXReturnValue parse(const AttributeMap& attributes, int* num_inputs, int* num_outputs) {
    return guarded([&] {
      const Op op{Attributes(attributes)};
      *num_inputs = static_cast<int>(op.inputs().size());
      *num_outputs = static_cast<int>(op.outputs().size());
      Attributes(attributes).requests(op.inputs().size());
    });
  }

  static MXReturnValue infer_type(const AttributeMap& attributes, std::vector<int>* in, std::vector<int>* out) {
    return guarded([&] {
      const Op op{Attributes(attributes)};
      settle_types(op.inputs(), op.outputs(), *in, *out);
    });
  }

  static MXReturnValue infer_shape(const AttributeMap& attributes, Shapes* in, Shapes* out) {
    return guarded([&] {
      if (is_known((*in)[0])) Op{Attributes(attributes)}.shape(*in, *out);
    });
  }

  static MXReturnValue forward(const AttributeMap& attributes, Tensors* in, Tensors* out, const OpResource& resource) {
    return guarded([&] { Op{Attributes(attributes)}.forward(*in, *out, resource); });
  }

  static MXReturnValue backward(const AttributeMap& attributes, Tensors* in, Tensors* gradients,
                                const OpResource& resource) {
    return guarded([&] {
      const Attributes named(attributes);
      const Op op{named};
      op.backward(*in, *gradients, request_codes(named.requests(op.inputs().size())), resource);
    });
  }
};

}  // namespace kogpt2

#ifndef KOGPT2_DEVICE
#define KOGPT2_DEVICE "gpu"  // tests that run the kernels on the host say "cpu"
#endif

#define KOGPT2_CUDA_OPERATOR(name, Op)                      \
  REGISTER_OP(name)                                         \
      .setParseAttrs(kogpt2::Operator<Op>::parse)           \
      .setInferType(kogpt2::Operator<Op>::infer_type)       \
      .setInferShape(kogpt2::Operator<Op>::infer_shape)     \
      .setForward(kogpt2::Operator<Op>::forward, KOGPT2_DEVICE)
