// What every CPU operator needs beside the library interface: precision, shape checks, token ids, registration.
#pragma once
#include <omp.h>

#include <cstdint>
#include <string>
#include <vector>

#include "../common/library_interface.h"

namespace kogpt2 {

enum class Precision { kFloat32, kBfloat16 };  // of matrix products; arrays are float32 either way

inline Precision precision_of(const Attributes& attributes) {
  const std::string name = attributes.text("precision", "float32");
  if (name == "float32") return Precision::kFloat32;
  if (name == "bfloat16") return Precision::kBfloat16;
  fail("precision='", name, "': float32 or bfloat16");
}

// Refuses a shape that is not the wanted one.
inline void expect_shape(const char* name, const Shape& shape, const Shape& wanted) {
  if (shape != wanted) fail(name, " has shape ", to_text(shape), ", expected ", to_text(wanted));
}

inline void expect_axes(const char* name, const Shape& shape, size_t axes) {
  if (shape.size() != axes) fail(name, " has shape ", to_text(shape), ", expected ", axes, " axes");
}

inline float* floats(MXTensor& tensor) { return tensor.data<float>(); }

// ---- calls ----------------------------------------------------------------------------------------------------------

void set_num_threads(int threads);  // of every later call
int num_threads();

// forward(attributes, inputs, outputs); backward(attributes, inputs, gradients), its inputs being the gradients of the
// outputs, then the inputs, then the outputs of the forward pass.
using Compute = void (*)(const Attributes&, Tensors&, Tensors&);
using InferShape = void (*)(const Attributes&, Shapes&, Shapes&);

template <Compute compute>
MXReturnValue run(const AttributeMap& attributes, Tensors* inputs, Tensors* outputs, const OpResource&) {
  return guarded([&] {
    omp_set_num_threads(num_threads());  // a setting of the calling thread, and MXNet's is 1
    compute(Attributes(attributes), *inputs, *outputs);
  });
}

template <InferShape infer>
MXReturnValue infer_shape(const AttributeMap& attributes, Shapes* inputs, Shapes* outputs) {
  return guarded([&] {
    for (const Shape& shape : *inputs) {
      if (!is_known(shape)) return;
    }
    infer(Attributes(attributes), *inputs, *outputs);
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
    if (id < 0 || id >= size) fail("id ", id, " at place ", i, " is outside of 0 .. ", size - 1, ": another tokenizer's?");
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
