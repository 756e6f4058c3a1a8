// The fused update and the gradient norm of launch.h as MXNet's operators, for the GPU. Neither has a gradient.
#include <cstddef>

#include "../common/rule_attribute.h"
#include "cuda_operator.h"

namespace kogpt2 {
namespace {

// The tables of an update, in device memory for the duration of the call. They are copied from pageable memory, which
// CUDA has read when the copy call returns, so the vectors may be freed.
class Plan {
 public:
  Plan(std::vector<KoGPT2Tensor> tensors, const OpResource& resource)
      : num_tensors_(static_cast<int64_t>(tensors.size())),
        chunks_(static_cast<size_t>(kogpt2_cuda_plan_update(tensors.data(), num_tensors_, nullptr))),
        workspace_(resource, {bytes(tensors), bytes(chunks_),
                              kogpt2_cuda_update_workspace(num_tensors_, num_chunks())}) {
    kogpt2_cuda_plan_update(tensors.data(), num_tensors_, chunks_.data());
    copy(tensors, workspace_[0], stream_of(resource));
    copy(chunks_, workspace_[1], stream_of(resource));
  }

  int64_t num_tensors() const { return num_tensors_; }
  int64_t num_chunks() const { return static_cast<int64_t>(chunks_.size()); }
  const KoGPT2Tensor* tensors() const { return static_cast<const KoGPT2Tensor*>(workspace_[0]); }
  const KoGPT2Chunk* chunks() const { return static_cast<const KoGPT2Chunk*>(workspace_[1]); }
  void* workspace() const { return workspace_[2]; }

 private:
  template <typename T>
  static int64_t bytes(const std::vector<T>& table) {
    return static_cast<int64_t>(table.size() * sizeof(T));
  }

  template <typename T>
  static void copy(const std::vector<T>& from, void* to, cudaStream_t stream) {
    check(cudaMemcpyAsync(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice, stream));
  }

  int64_t num_tensors_;
  std::vector<KoGPT2Chunk> chunks_;
  Workspace workspace_;
};

double inverse_loss_scale(const Attributes& attributes) {
  const double scale = attributes.number("loss_scale", 1.0);
  if (!(scale > 0.0)) fail("loss_scale=", scale, " is not above 0");
  return 1.0 / scale;
}

// kogpt2_cuda_gradient_norm(gradient, ... (num_tensors of them, any shapes) T; num_tensors, loss_scale=1)
//   -> (2,) float64: the sum of the squares of gradient / loss_scale, and how many of these are not finite
struct GradientNorm {
  enum Output { kOut };
  int64_t num_tensors;
  double inverse_scale;

  explicit GradientNorm(const Attributes& attributes)
      : num_tensors(attributes.integer("num_tensors", 1, 1)), inverse_scale(inverse_loss_scale(attributes)) {}

  Arrays inputs() const {
    Arrays declared;
    for (int64_t i = 0; i < num_tensors; ++i) declared.push_back({"gradient", 'T', i});
    return declared;
  }
  Arrays outputs() const { return {{"out", 'd'}}; }

  void shape(ShapeInference& shapes) const { shapes.output(kOut) = {2}; }

  void forward(const ForwardCall& call) const {
    std::vector<KoGPT2Tensor> tensors;
    for (MXTensor& gradient : call.inputs()) {
      KoGPT2Tensor tensor{};
      tensor.gradient = gradient.data_ptr;
      tensor.gradient_dtype = storage_of(gradient);
      tensor.size = gradient.size();
      tensors.push_back(tensor);
    }
    const Plan plan(std::move(tensors), call.resource);
    check(kogpt2_cuda_gradient_norm(plan.tensors(), plan.chunks(), plan.num_chunks(), inverse_scale,
                                    call.output(kOut).data<double>(), plan.workspace(), stream_of(call.resource)));
  }
};

// kogpt2_cuda_fused_update(masters ..., means ..., variances ..., gradients ..., copies ...;
//                          num_tensors, copies=0, optimizer, step, learning_rate, beta1, beta2, epsilon, weight_decays,
//                          loss_scale=1, clip_factor=1)
//   -> (1,) float32, 0: MXNet wants an output
//
// num_tensors of each, masters and moments float32 and all but gradients written to, gradients T; with copies=1 float16
// copies of the masters come last. weight_decays: a number for each tensor, between commas.
struct FusedUpdate {
  enum Part { kMasters, kMeans, kVariances, kGradients, kCopies };  // of the inputs, num_tensors each
  enum Output { kOut };
  KoGPT2Update update;
  int64_t num_tensors;
  bool copies;
  std::vector<double> weight_decays;

  explicit FusedUpdate(const Attributes& attributes)
      : update{static_cast<int32_t>(rule_of(attributes, "optimizer", "")),
               static_cast<int32_t>(attributes.integer("step", 1, 1)),
               attributes.number("learning_rate"),
               attributes.number("beta1"),
               attributes.number("beta2"),
               attributes.number("epsilon"),
               inverse_loss_scale(attributes),
               attributes.number("clip_factor", 1.0)},
        num_tensors(attributes.integer("num_tensors", 1, 1)),
        copies(attributes.integer("copies", 0, 0) != 0),
        weight_decays(attributes.numbers("weight_decays", static_cast<size_t>(num_tensors))) {}

  Part last_part() const { return copies ? kCopies : kGradients; }
  size_t place(Part part, int64_t tensor) const { return static_cast<size_t>(part * num_tensors + tensor); }

  Arrays inputs() const {
    static const Array parts[] = {{"master", 'f'}, {"mean", 'f'}, {"variance", 'f'}, {"gradient", 'T'}, {"copy", 'h'}};
    Arrays declared;
    for (int part = kMasters; part <= last_part(); ++part) {
      for (int64_t i = 0; i < num_tensors; ++i) declared.push_back({parts[part].name, parts[part].type, i});
    }
    return declared;
  }
  Arrays outputs() const { return {{"out", 'f'}}; }

  std::vector<int> written_inputs() const {
    std::vector<int> written;
    for (int part = kMasters; part <= last_part(); ++part) {
      for (int64_t i = 0; part != kGradients && i < num_tensors; ++i) {
        written.push_back(static_cast<int>(place(static_cast<Part>(part), i)));
      }
    }
    return written;
  }

  void shape(ShapeInference& shapes) const {
    for (int64_t i = 0; i < num_tensors; ++i) {
      if (!shapes.knows(place(kMasters, i))) continue;
      const Shape master = shapes.input(place(kMasters, i));
      for (int part = kMeans; part <= last_part(); ++part) shapes.settle(place(static_cast<Part>(part), i), master);
    }
    shapes.output(kOut) = {1};
  }

  void forward(const ForwardCall& call) const {
    std::vector<KoGPT2Tensor> tensors;
    for (int64_t i = 0; i < num_tensors; ++i) {
      const auto array = [&](Part part) -> MXTensor& { return call.input(place(part, i)); };
      KoGPT2Tensor tensor{};
      tensor.master = array(kMasters).data<float>();
      tensor.mean = array(kMeans).data<float>();
      tensor.variance = array(kVariances).data<float>();
      tensor.gradient = array(kGradients).data_ptr;
      tensor.gradient_dtype = storage_of(array(kGradients));
      tensor.working_copy = copies ? array(kCopies).data_ptr : nullptr;
      tensor.size = array(kMasters).size();
      tensor.weight_decay = static_cast<float>(weight_decays[static_cast<size_t>(i)]);
      tensors.push_back(tensor);
    }
    const Plan plan(std::move(tensors), call.resource);
    check(kogpt2_cuda_fused_update(plan.tensors(), plan.num_tensors(), plan.chunks(), plan.num_chunks(), &update,
                                   plan.workspace(), stream_of(call.resource)));
    write_zeros(call.output(kOut), stream_of(call.resource));
  }
};

}  // namespace

KOGPT2_CUDA_OPERATOR(kogpt2_cuda_gradient_norm, GradientNorm);
KOGPT2_CUDA_OPERATOR(kogpt2_cuda_fused_update, FusedUpdate);

}  // namespace kogpt2
