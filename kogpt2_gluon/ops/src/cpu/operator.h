// What every CPU operator needs of MXNet's library interface: attributes, shape checks, errors, registration.
//
// The interface has traps, met here once for all operators:
// - it does not tell an operator what to do with a gradient (write, add or nothing): `req`, an attribute with a word for
//   each input, does;
// - shape inference also runs with shapes that are not known yet (empty): Shape::known();
// - an exception must not cross it: guarded() turns one into MXNet's error message.
#pragma once
#include <omp.h>

#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "mxnet/lib_api.h"

namespace kogpt2 {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using Tensors = std::vector<MXTensor>;
using Shape = std::vector<unsigned int>;  // as shape inference has it; empty: not known yet
using Shapes = std::vector<Shape>;
using AttributeMap = std::unordered_map<std::string, std::string>;

enum class Precision { kFloat32, kBfloat16 };  // of matrix products; arrays are float32 either way
enum class Request { kNull, kWrite, kAdd };

// A fault of the caller's, in one line.
struct OperatorError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw OperatorError(text.str());
}

// The keyword arguments of an operator, which arrive as strings.
class Attributes {
 public:
  explicit Attributes(const AttributeMap& map) : map_(map) {}

  std::string text(const std::string& key, const std::string& otherwise) const {
    const auto found = map_.find(key);
    return found == map_.end() ? otherwise : found->second;
  }

  double number(const std::string& key, double otherwise) const {
    const auto found = map_.find(key);
    if (found == map_.end()) return otherwise;
    char* end = nullptr;
    const double value = std::strtod(found->second.c_str(), &end);
    if (found->second.empty() || *end) fail(key, "='", found->second, "' is not a number");
    return value;
  }

  int64_t integer(const std::string& key, int64_t otherwise) const {
    const double value = number(key, static_cast<double>(otherwise));
    if (value != static_cast<double>(static_cast<int64_t>(value))) fail(key, "=", value, " is not a whole number");
    return static_cast<int64_t>(value);
  }

  Precision precision() const {
    const std::string name = text("precision", "float32");
    if (name == "float32") return Precision::kFloat32;
    if (name == "bfloat16") return Precision::kBfloat16;
    fail("precision='", name, "': float32 or bfloat16");
  }

  // What is wanted of the gradient of each input; without the attribute every one is written.
  std::vector<Request> requests(size_t num_inputs) const {
    std::vector<Request> wanted(num_inputs, Request::kWrite);
    if (map_.count("req") == 0) return wanted;
    std::istringstream words(map_.at("req"));
    std::string word;
    size_t count = 0;
    for (; std::getline(words, word, ','); ++count) {
      if (count < num_inputs) wanted[count] = request(word);
    }
    if (count != num_inputs) fail("req='", map_.at("req"), "': ", num_inputs, " words wanted, one per input");
    return wanted;
  }

 private:
  static Request request(const std::string& word) {
    if (word == "write") return Request::kWrite;
    if (word == "add") return Request::kAdd;
    if (word == "null") return Request::kNull;
    fail("req: '", word, "' is none of write, add, null");
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

inline bool all_known(const Shapes& shapes) {
  for (const Shape& shape : shapes) {
    if (shape.empty()) return false;
    for (unsigned int size : shape) {
      if (static_cast<int>(size) <= 0) return false;  // an unknown size comes as 0 or as -1
    }
  }
  return true;
}

// Refuses a shape that is not the wanted one.
inline void expect_shape(const char* name, const Shape& shape, const Shape& wanted) {
  if (shape != wanted) fail(name, " has shape ", to_text(shape), ", expected ", to_text(wanted));
}

inline void expect_axes(const char* name, const Shape& shape, size_t axes) {
  if (shape.size() != axes) fail(name, " has shape ", to_text(shape), ", expected ", axes, " axes");
}

// All axes but the last as one.
inline int64_t num_rows(const MXTensor& tensor) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
  return rows;
}

inline float* floats(MXTensor& tensor) { return tensor.data<float>(); }

// ---- calls ----------------------------------------------------------------------------------------------------------

void set_num_threads(int threads);  // of every later call
int num_threads();

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

// forward(attributes, inputs, outputs); backward(attributes, inputs, gradients), its inputs being the gradients of the
// outputs, then the inputs, then the outputs of the forward pass.
using Compute = void (*)(const Attributes&, Tensors&, Tensors&);
using InferShape = void (*)(const Attributes&, Shapes&, Shapes&);

template <Compute compute>
MXReturnValue run(const AttributeMap& attributes, Tensors* inputs, Tensors* outputs, const mxnet::ext::OpResource&) {
  return guarded([&] {
    omp_set_num_threads(num_threads());  // a setting of the calling thread, and MXNet's is 1
    compute(Attributes(attributes), *inputs, *outputs);
  });
}

template <InferShape infer>
MXReturnValue infer_shape(const AttributeMap& attributes, Shapes* inputs, Shapes* outputs) {
  return guarded([&] {
    if (all_known(*inputs)) infer(Attributes(attributes), *inputs, *outputs);
  });
}

template <int inputs, int outputs>
MXReturnValue count(const AttributeMap&, int* num_inputs, int* num_outputs) {
  *num_inputs = inputs;
  *num_outputs = outputs;
  return mxnet::ext::MX_SUCCESS;
}

// Every array is float32, but for the inputs whose bit is set in `ids`: these hold token ids, as int32 or float32.
template <unsigned ids>
MXReturnValue infer_type(const AttributeMap&, std::vector<int>* inputs, std::vector<int>* outputs) {
  return guarded([&] {
    for (size_t i = 0; i < inputs->size(); ++i) {
      int& type = (*inputs)[i];
      if (type < 0) type = mxnet::ext::kFloat32;
      const bool may_be_int = (ids >> i) & 1;
      if (type == mxnet::ext::kFloat32 || (may_be_int && type == mxnet::ext::kInt32)) continue;
      fail("input ", i, " has MXNet's type number ", type, "; expected float32", may_be_int ? " or int32" : "");
    }
    for (int& type : *outputs) type = mxnet::ext::kFloat32;
  });
}

// Token ids as they come, int32 or float32.
class Ids {
 public:
  explicit Ids(const MXTensor& tensor)
      : data_(tensor.data_ptr), is_int_(tensor.dtype == mxnet::ext::kInt32) {}

  // Id `i`, refused when it is not one of 0 .. size - 1.
  int64_t at(int64_t i, int64_t size) const {
    const int64_t id = is_int_ ? static_cast<const int32_t*>(data_)[i]
                               : static_cast<int64_t>(static_cast<const float*>(data_)[i]);
    if (id < 0 || id >= size) fail("id ", id, " at place ", i, " is outside of 0 .. ", size - 1);
    return id;
  }

 private:
  const void* data_;
  bool is_int_;
};

}  // namespace kogpt2

// An operator of `inputs` inputs and `outputs` outputs; `ids`: see infer_type.
#define KOGPT2_OPERATOR(name, inputs, outputs, ids, shape, forward, backward)      \
  REGISTER_OP(name)                                                                \
      .setParseAttrs(kogpt2::count<inputs, outputs>)                               \
      .setInferType(kogpt2::infer_type<ids>)                                       \
      .setInferShape(kogpt2::infer_shape<shape>)                                   \
      .setForward(kogpt2::run<forward>, "cpu")                                     \
      .setBackward(kogpt2::run<backward>, "cpu")
