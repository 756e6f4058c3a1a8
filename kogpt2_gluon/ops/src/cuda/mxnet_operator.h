/* What the GPU operators need of MXNet's library interface: attributes, types, shapes, workspace, errors, registration.
 *
 * The interface has traps, met here once for all operators:
 * - it does not tell an operator what to do with a gradient (write, add or nothing): `req`, an attribute with a word
 *   for each input, does;
 * - shape inference also runs with shapes that are not known yet, or known in part (MXNet counts an unknown shape as -1
 *   axes: where unknown inputs outnumber the axes of the known ones it fails by itself, with std::bad_alloc);
 * - its memory for an operator is one piece, which a second request makes invalid: Workspace asks once;
 * - an exception must not cross it: guarded() turns one into MXNet's error message.
 */
#pragma once
#include <cuda_runtime.h>

#include <climits>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

// Under nvcc this header wants cuRAND's, for random numbers that are not used here; not every toolkit has it.
#pragma push_macro("__NVCC__")
#undef __NVCC__
#include "mxnet/lib_api.h"
#pragma pop_macro("__NVCC__")

#include "launch.h"

namespace kogpt2 {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using Tensors = std::vector<MXTensor>;
using Shape = std::vector<unsigned int>;  // as shape inference has it; empty: not known yet
using Shapes = std::vector<Shape>;
using AttributeMap = std::unordered_map<std::string, std::string>;

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

inline void check(int error) {
  if (error != cudaSuccess) fail("CUDA: ", kogpt2_cuda_error_text(error));
}

// ---- attributes -----------------------------------------------------------------------------------------------------

// The keyword arguments of an operator, which arrive as strings.
class Attributes {
 public:
  explicit Attributes(const AttributeMap& map) : map_(map) {}

  bool has(const std::string& key) const { return map_.count(key) != 0; }

  std::string text(const std::string& key, const std::string& otherwise) const {
    return has(key) ? map_.at(key) : otherwise;
  }

  double number(const std::string& key, double otherwise) const {
    return has(key) ? parse(key, map_.at(key)) : otherwise;
  }

  double number(const std::string& key) const {
    if (!has(key)) fail(key, "= is missing");
    return parse(key, map_.at(key));
  }

  int64_t integer(const std::string& key, int64_t least, int64_t otherwise) const {
    const double value = number(key, static_cast<double>(otherwise));
    if (value != static_cast<double>(static_cast<int64_t>(value)) || value < static_cast<double>(least)) {
      fail(key, "=", map_.at(key), " is not a whole number from ", least, " on");
    }
    return static_cast<int64_t>(value);
  }

  // `count` numbers between commas.
  std::vector<double> numbers(const std::string& key, size_t count) const {
    std::vector<double> values;
    for (const std::string& word : words(key)) values.push_back(parse(key, word));
    if (values.size() != count) fail(key, " has ", values.size(), " numbers, expected ", count);
    return values;
  }

  // What is wanted of the gradient of each input; without the attribute every one is written.
  std::vector<int> requests(size_t num_inputs) const {
    if (!has("req")) return std::vector<int>(num_inputs, KOGPT2_WRITE);
    std::vector<int> wanted;
    for (const std::string& word : words("req")) wanted.push_back(request(word));
    if (wanted.size() != num_inputs) fail("req='", map_.at("req"), "': ", num_inputs, " words wanted, one per input");
    return wanted;
  }

 private:
  static int request(const std::string& word) {
    if (word == "write") return KOGPT2_WRITE;
    if (word == "add") return KOGPT2_ADD;
    if (word == "null") return KOGPT2_NULL;
    fail("req: '", word, "' is none of write, add, null");
  }

  static double parse(const std::string& key, const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end) fail(key, "='", text, "' is not a number");
    return value;
  }

  std::vector<std::string> words(const std::string& key) const {
    std::vector<std::string> found;
    std::istringstream stream(text(key, ""));
    for (std::string word; std::getline(stream, word, ',');) found.push_back(word);
    return found;
  }

  const AttributeMap& map_;
};

// ---- shapes ---------------------------------------------------------------------------------------------------------

inline std::string to_text(const Shape& shape) {
  std::ostringstream text;
  text << "(";
  for (size_t i = 0; i < shape.size(); ++i) text << (i ? ", " : "") << shape[i];
  text << ")";
  return text.str();
}

// A size that is not known arrives as 0, or as -1 made unsigned.
inline bool is_known(const Shape& shape) {
  for (unsigned size : shape) {
    if (size == 0 || size == UINT_MAX) return false;
  }
  return !shape.empty();
}

// An input whose shape follows from another's: filled in, or compared.
inline void settle(const char* name, Shape& shape, const Shape& wanted) {
  if (!is_known(shape)) shape = wanted;
  if (shape != wanted) fail(name, " has shape ", to_text(shape), ", expected ", to_text(wanted));
}

inline Shape without_last(const Shape& shape) { return Shape(shape.begin(), shape.end() - 1); }

// All axes but the last `axes` as one.
inline int64_t leading(const MXTensor& tensor, size_t axes) {
  int64_t count = 1;
  for (size_t i = 0; i + axes < tensor.shape.size(); ++i) count *= tensor.shape[i];
  return count;
}

inline int64_t num_rows(const MXTensor& tensor) { return leading(tensor, 1); }

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
    if (total > INT_MAX) fail("a workspace of ", total, " bytes, and MXNet gives at most ", INT_MAX);
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

// ---- calls ----------------------------------------------------------------------------------------------------------

template <typename Body>
MXReturnValue guarded(const Body& body) {
  try {
    body();
    return mxnet::ext::MX_SUCCESS;
  } catch (const std::exception& error) {
    MX_ERROR_MSG << error.what();
    return mxnet::ext::MX_FAIL;
  }
}

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
      op.backward(*in, *gradients, named.requests(op.inputs().size()), resource);
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
