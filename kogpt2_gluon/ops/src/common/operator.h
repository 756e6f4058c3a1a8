// One way to declare an operator to MXNet, for the CPU and for CUDA.
//
// An operator is a struct Op. A new one is made for every call, from the attributes of that call:
//
//   explicit Op(const Attributes&)               reads the attributes and refuses wrong ones
//   Arrays inputs() const, outputs() const       the name and the type of each array, see Array
//   void shape(ShapeInference&) const            the shapes of the outputs, and of inputs that follow from others
//   void forward(const ForwardCall&) const
//   void backward(const BackwardCall&) const         optional
//   std::vector<int> written_inputs() const      optional: the inputs that forward() changes in place
//   Saved                                        optional, a type: what forward() keeps for backward(). Both then get a
//                                                Saved& as their second argument
//
// Arrays are named by enums of the operator, enum Input { kData, kWeight } and enum Output { kOut }, in the order of
// inputs() and outputs(). A Device is a struct with the name of MXNet's context, kName, and begin(), which runs before
// every computation. KOGPT2_DEFINE_OPERATOR(name, Op, Device) registers the operator.
//
// Two traps of MXNet's library interface are handled here (library_interface.h handles the others):
// - shape inference also runs when shapes are not known yet, or known in part: ShapeInference ends quietly there;
// - an array that the backward pass needs could be an output of the operator, but then MXNet makes a gradient for that
//   output too: an array of zeros of its size, written in every backward pass for nothing. `Saved` costs no such array.
#pragma once
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "library_interface.h"

namespace kogpt2 {

// ---- declarations ---------------------------------------------------------------------------------------------------

// One input or output: the name that messages use, and a letter for its type:
//   f float32    h float16    d float64    i int32    u uint8
//   T float32 or float16: the storage type of the call, the same for all its arrays with this letter
//   n float32 or int32: whole numbers, such as token ids
//   w float32 or uint8: a weight, which is packed if it is uint8
// `group` is set where an operator takes any number of arrays: it counts the arrays of the same name.
struct Array {
  const char* name;
  char type;
  int64_t group = -1;
};
using Arrays = std::vector<Array>;

inline std::string to_text(const Array& array) {
  return array.group < 0 ? array.name : array.name + std::string(" of array ") + std::to_string(array.group);
}

// ---- types ----------------------------------------------------------------------------------------------------------

constexpr int kUnknownType = -1;

inline const char* type_name(int type) {
  static const char* const names[] = {"float32", "float64", "float16", "uint8", "int32", "int8", "int64"};
  return type >= 0 && type < 7 ? names[type] : "not supported";
}

// The type of an array that nobody has fixed; `storage` is that of the arrays with the letter T.
inline int default_type(char letter, int storage) {
  switch (letter) {
    case 'T': return storage;
    case 'h': return mxnet::ext::kFloat16;
    case 'd': return mxnet::ext::kFloat64;
    case 'i': return mxnet::ext::kInt32;
    case 'u': return mxnet::ext::kUint8;
    default: return mxnet::ext::kFloat32;
  }
}

inline bool accepts_type(char letter, int storage, int type) {
  if (type == default_type(letter, storage)) {
    return letter != 'T' || type == kUnknownType || type == mxnet::ext::kFloat32 || type == mxnet::ext::kFloat16;
  }
  return (letter == 'n' && type == mxnet::ext::kInt32) || (letter == 'w' && type == mxnet::ext::kUint8);
}

inline std::string expected_types(char letter) {
  switch (letter) {
    case 'T': return "float32 or float16, the same for all arrays of the storage type";
    case 'n': return "float32 or int32";
    case 'w': return "float32, or uint8 for a packed weight";
    default: return type_name(default_type(letter, kUnknownType));
  }
}

// Fills in the types that are not known yet, and refuses wrong ones.
inline void settle_types(const Arrays& inputs, const Arrays& outputs, std::vector<int>& in, std::vector<int>& out) {
  int storage = kUnknownType;
  for (size_t i = 0; i < in.size() && storage == kUnknownType; ++i) {
    if (inputs[i].type == 'T') storage = in[i];
  }
  for (size_t i = 0; i < in.size(); ++i) {
    const char letter = inputs[i].type;
    if (in[i] == kUnknownType) in[i] = default_type(letter, storage);
    if (!accepts_type(letter, storage, in[i])) {
      fail(to_text(inputs[i]), " has type ", type_name(in[i]), ", expected ", expected_types(letter));
    }
  }
  for (size_t i = 0; i < out.size(); ++i) out[i] = default_type(outputs[i].type, storage);
}

// ---- shapes ---------------------------------------------------------------------------------------------------------

// The shapes of one call. Reading the shape of an input that is not known yet ends the inference for now, without an
// error: MXNet infers again when it knows more.
class ShapeInference {
 public:
  struct NotKnownYet {};

  ShapeInference(const Arrays& declared, Shapes& inputs, Shapes& outputs)
      : declared_(declared), inputs_(inputs), outputs_(outputs) {}

  size_t num_inputs() const { return inputs_.size(); }
  bool knows(size_t input) const { return is_known(inputs_[input]); }

  const Shape& input(size_t input) const {
    if (!knows(input)) throw NotKnownYet();
    return inputs_[input];
  }

  // The shape of an input that must have this number of axes.
  const Shape& input(size_t input, size_t axes) const {
    const Shape& shape = this->input(input);
    if (shape.size() != axes) refuse(input, std::to_string(axes) + " axes");
    return shape;
  }

  // The shape of an input follows from others: it is filled in if it is not known yet, and else compared.
  void settle(size_t input, const Shape& wanted) {
    if (!knows(input)) inputs_[input] = wanted;
    if (inputs_[input] != wanted) refuse(input, to_text(wanted));
  }

  [[noreturn]] void refuse(size_t input, const std::string& expected) const {
    fail(to_text(declared_[input]), " has shape ", to_text(inputs_[input]), ", expected ", expected);
  }

  Shape& output(size_t output) { return outputs_[output]; }

 private:
  const Arrays& declared_;
  Shapes& inputs_;
  Shapes& outputs_;
};

// `shape` with another last axis.
inline Shape with_last(Shape shape, unsigned last) {
  shape.back() = last;
  return shape;
}

inline Shape without_last(const Shape& shape) { return Shape(shape.begin(), shape.end() - 1); }

// ---- calls ----------------------------------------------------------------------------------------------------------

class ForwardCall {
 public:
  ForwardCall(Tensors& inputs, Tensors& outputs, const OpResource& given)
      : resource(given), inputs_(inputs), outputs_(outputs) {}

  MXTensor& input(size_t input) const { return inputs_[input]; }
  MXTensor& output(size_t output) const { return outputs_[output]; }
  Tensors& inputs() const { return inputs_; }

  const OpResource& resource;

 private:
  Tensors& inputs_;
  Tensors& outputs_;
};

// MXNet hands the backward pass the gradients of the outputs, then the inputs, then the outputs of the forward pass.
class BackwardCall {
 public:
  BackwardCall(Tensors& arrays, Tensors& gradients, std::vector<Request> requests, const OpResource& given)
      : resource(given), arrays_(arrays), gradients_(gradients), requests_(std::move(requests)),
        num_outputs_((arrays.size() - gradients.size()) / 2) {}

  MXTensor& output_gradient(size_t output) const { return arrays_[output]; }
  MXTensor& input(size_t input) const { return arrays_[num_outputs_ + input]; }
  MXTensor& output(size_t output) const { return arrays_[num_outputs_ + gradients_.size() + output]; }

  // The gradient of an input, and what must be done with it.
  MXTensor& gradient(size_t input) const { return gradients_[input]; }
  Request request(size_t input) const { return requests_[input]; }
  bool wants(size_t input) const { return requests_[input] != Request::kNull; }
  bool adds(size_t input) const { return requests_[input] == Request::kAdd; }

  const OpResource& resource;

 private:
  Tensors& arrays_;
  Tensors& gradients_;
  const std::vector<Request> requests_;
  const size_t num_outputs_;
};

// ---- registration ---------------------------------------------------------------------------------------------------

template <typename Op, typename = void>
struct HasBackward : std::false_type {};
template <typename Op>
struct HasBackward<Op, std::void_t<decltype(&Op::backward)>> : std::true_type {};

template <typename Op, typename = void>
struct HasSaved : std::false_type {};
template <typename Op>
struct HasSaved<Op, std::void_t<typename Op::Saved>> : std::true_type {};

template <typename Op, typename = void>
struct HasWrittenInputs : std::false_type {};
template <typename Op>
struct HasWrittenInputs<Op, std::void_t<decltype(&Op::written_inputs)>> : std::true_type {};

// The functions that MXNet calls.
template <typename Op, typename Device>
struct Entry {
  static MXReturnValue parse(const AttributeMap& map, int* num_inputs, int* num_outputs) {
    return guarded([&] {
      const Attributes attributes(map);
      const Op op(attributes);
      *num_inputs = static_cast<int>(op.inputs().size());
      *num_outputs = static_cast<int>(op.outputs().size());
      if (attributes.has("req")) attributes.requests(static_cast<size_t>(*num_inputs));  // refuses wrong words
    });
  }

  static MXReturnValue infer_type(const AttributeMap& map, std::vector<int>* in, std::vector<int>* out) {
    return guarded([&] {
      const Op op{Attributes(map)};
      settle_types(op.inputs(), op.outputs(), *in, *out);
    });
  }

  static MXReturnValue infer_shape(const AttributeMap& map, Shapes* in, Shapes* out) {
    return guarded([&] {
      const Op op{Attributes(map)};
      const Arrays declared = op.inputs();
      ShapeInference shapes(declared, *in, *out);
      try {
        op.shape(shapes);
      } catch (const ShapeInference::NotKnownYet&) {
      }
    });
  }

  static MXReturnValue written_inputs(const AttributeMap& map, std::vector<int>* indices) {
    return guarded([&] { *indices = Op{Attributes(map)}.written_inputs(); });
  }

  static MXReturnValue forward(const AttributeMap& map, Tensors* in, Tensors* out, const OpResource& resource) {
    return guarded([&] {
      Device::begin();
      Op{Attributes(map)}.forward(ForwardCall(*in, *out, resource));
    });
  }

  static MXReturnValue backward(const AttributeMap& map, Tensors* in, Tensors* gradients, const OpResource& resource) {
    return guarded([&] {
      Device::begin();
      const Attributes attributes(map);
      Op{attributes}.backward(BackwardCall(*in, *gradients, attributes.requests(gradients->size()), resource));
    });
  }
};

// One node of a graph with an operator that saves: it holds what the last forward pass saved until the next one, or
// until the graph is gone. MXNet makes a node for every call, but in a hybridized block with static_alloc once for all
// calls.
template <typename Op, typename Device>
class SavingNode : public mxnet::ext::CustomStatefulOp {
 public:
  explicit SavingNode(AttributeMap map) : map_(std::move(map)), op_(Attributes(map_)) { ignore_warn = true; }

  static MXReturnValue create(const AttributeMap& map, const mxnet::ext::MXContext&, const Shapes&,
                              const std::vector<int>, mxnet::ext::CustomStatefulOp** made) {
    return guarded([&] { *made = mxnet::ext::CustomStatefulOp::create<SavingNode>(map); });
  }

  MXReturnValue Forward(Tensors* in, Tensors* out, const OpResource& resource) override {
    return guarded([&] {
      Device::begin();
      op_.forward(ForwardCall(*in, *out, resource), saved_);
    });
  }

  MXReturnValue Backward(Tensors* in, Tensors* gradients, const OpResource& resource) override {
    return guarded([&] {
      Device::begin();
      const std::vector<Request> requests = Attributes(map_).requests(gradients->size());
      op_.backward(BackwardCall(*in, *gradients, requests, resource), saved_);
    });
  }

 private:
  const AttributeMap map_;
  const Op op_;
  typename Op::Saved saved_;
};

template <typename Op, typename Device>
bool define_operator(const char* name) {
  using Calls = Entry<Op, Device>;
  mxnet::ext::CustomOp& op = mxnet::ext::Registry<mxnet::ext::CustomOp>::get()->add(name);
  op.setParseAttrs(Calls::parse).setInferType(Calls::infer_type).setInferShape(Calls::infer_shape);
  if constexpr (HasSaved<Op>::value) {
    op.setCreateOpState(SavingNode<Op, Device>::create, Device::kName);
  } else {
    op.setForward(Calls::forward, Device::kName);
    if constexpr (HasBackward<Op>::value) op.setBackward(Calls::backward, Device::kName);
  }
  if constexpr (HasWrittenInputs<Op>::value) op.setMutateInputs(Calls::written_inputs);
  return true;
}

// What the library answers when MXNet loads it.
inline MXReturnValue check_version(int version) {
  return guarded([&] {
    if (version < 10900 || version >= 20000) fail("these operators are for MXNet 1.9, not ", version);
  });
}

}  // namespace kogpt2

#define KOGPT2_DEFINE_OPERATOR(name, Op, Device) \
  [[maybe_unused]] static const bool name##_is_defined = kogpt2::define_operator<Op, Device>(#name)
