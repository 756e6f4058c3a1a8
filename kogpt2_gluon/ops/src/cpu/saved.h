// Operators whose forward pass leaves memory to the backward pass.
//
// What an operator needs later could be an output of it, and then MXNet makes a gradient for that output too: an array
// of zeros of its size, written in every backward pass for nothing. What is kept here has no such shadow.
#pragma once
#include <utility>

#include "operator.h"

namespace kogpt2 {

// One node of a graph: it holds a `Saved` from each forward pass until the next, or until the graph is gone. MXNet
// makes one for every call, but in a hybridized block with static_alloc once for all calls.
template <typename Saved, void (*forward)(const Attributes&, Tensors&, Tensors&, Saved&),
          void (*backward)(const Attributes&, Tensors&, Tensors&, Saved&)>
class SavingOperator : public mxnet::ext::CustomStatefulOp {
 public:
  explicit SavingOperator(AttributeMap attributes) : attributes_(std::move(attributes)) { ignore_warn = true; }

  MXReturnValue Forward(Tensors* inputs, Tensors* outputs, const OpResource&) override {
    return guarded([&] {
      omp_set_num_threads(num_threads());  // as in run()
      forward(Attributes(attributes_), *inputs, *outputs, saved_);
    });
  }

  MXReturnValue Backward(Tensors* inputs, Tensors* gradients, const OpResource&) override {
    return guarded([&] {
      omp_set_num_threads(num_threads());
      backward(Attributes(attributes_), *inputs, *gradients, saved_);
    });
  }

 private:
  const AttributeMap attributes_;
  Saved saved_;
};

template <typename Operator>
MXReturnValue create(const AttributeMap& attributes, const mxnet::ext::MXContext&, const Shapes&,
                     const std::vector<int>, mxnet::ext::CustomStatefulOp** made) {
  return guarded([&] { *made = mxnet::ext::CustomStatefulOp::create<Operator>(attributes); });
}

}  // namespace kogpt2

// As KOGPT2_OPERATOR, with forward(attributes, inputs, outputs, saved) and backward(attributes, inputs, gradients,
// saved); `Saved` can be made without arguments.
#define KOGPT2_SAVING_OPERATOR(name, inputs, outputs, ids, shape, forward, backward, Saved)          \
  REGISTER_OP(name)                                                                                  \
      .setParseAttrs(kogpt2::count<inputs, outputs>)                                                 \
      .setInferType(kogpt2::infer_type<ids>)                                                         \
      .setInferShape(kogpt2::infer_shape<shape>)                                                     \
      .setCreateOpState(kogpt2::create<kogpt2::SavingOperator<Saved, forward, backward>>, "cpu")
