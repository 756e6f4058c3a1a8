// The fused update and the gradient norm of launch.h as MXNet's operators, for the GPU. Neither has a gradient.
#include <cstddef>

#include "mxnet_operator.h"

namespace kogpt2 {
namespace {

// The tables of an update, in device memory for the time of the call. Copied from pageable memory, which CUDA has read
// when the call returns: the vectors may go.
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
  int64_t num_tensors;
  double inverse_scale;

  explicit GradientNorm(const Attributes& attributes)
      : num_tensors(attributes.integer("num_tensors", 1, 1)), inverse_scale(inverse_loss_scale(attributes)) {}
  std::string inputs() const { return std::string(static_cast<size_t>(num_tensors), 'T'); }
  std::string outputs() const { return "d"; }

  void shape(Shapes&, Shapes& out) const { out[0] = {2}; }

  void forward(Tensors& in, Tensors& out, const OpResource& resource) const {
    std::vector<KoGPT2Tensor> tensors;
    for (MXTensor& gradient : in) {
      KoGPT2Tensor tensor{};
      tensor.gradient = gradient.data_ptr;
      tensor.gradient_dtype = storage_of(gradient);
      tensor.size = gradient.size();
      tensors.push_back(tensor);
    }
    const Plan plan(std::move(tensors), resource);
    check(kogpt2_cuda_gradient_norm(plan.tensors(), plan.chunks(), plan.num_chunks(), inverse_scale,
                                    out[0].data<double>(), plan.workspace(), stream_of(resource)));
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
  KoGPT2Update update;
  int64_t num_tensors;
  bool copies;
  std::vector<double> weight_decays;

  explicit FusedUpdate(const Attributes& attributes)
      : update{optimizer(attributes.text("optimizer", "")),
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

  static int optimizer(const std::string& name) {
    if (name == "adamw") return KOGPT2_ADAMW;
    if (name == "bertadam") return KOGPT2_BERTADAM;
    if (name == "adam") return KOGPT2_ADAM;
    if (name == "lamb") return KOGPT2_LAMB;
    fail("optimizer='", name, "' is none of adamw, bertadam, adam, lamb");
  }

  std::string inputs() const {
    const size_t n = static_cast<size_t>(num_tensors);
    return std::string(3 * n, 'f') + std::string(n, 'T') + std::string(copies ? n : 0, 'h');
  }
  std::string outputs() const { return "f"; }

  void shape(Shapes& in, Shapes& out) const {
    const size_t n = static_cast<size_t>(num_tensors);
    for (size_t i = n; i < in.size(); ++i) {
      if (is_known(in[i % n])) settle(("array " + std::to_string(i)).c_str(), in[i], in[i % n]);
    }
    out[0] = {1};
  }

  void forward(Tensors& in, Tensors& out, const OpResource& resource) const {
    const size_t n = static_cast<size_t>(num_tensors);
    std::vector<KoGPT2Tensor> tensors;
    for (size_t i = 0; i < n; ++i) {
      KoGPT2Tensor tensor{};
      tensor.master = in[i].data<float>();
      tensor.mean = in[n + i].data<float>();
      tensor.variance = in[2 * n + i].data<float>();
      tensor.gradient = in[3 * n + i].data_ptr;
      tensor.gradient_dtype = storage_of(in[3 * n + i]);
      tensor.working_copy = copies ? in[4 * n + i].data_ptr : nullptr;
      tensor.size = in[i].size();
      tensor.weight_decay = static_cast<float>(weight_decays[i]);
      tensors.push_back(tensor);
    }
    const Plan plan(std::move(tensors), resource);
    check(kogpt2_cuda_fused_update(plan.tensors(), plan.num_tensors(), plan.chunks(), plan.num_chunks(), &update,
                                   plan.workspace(), stream_of(resource)));
    write_zeros(out[0], KOGPT2_WRITE, stream_of(resource));
  }

  static MXReturnValue mutated(const AttributeMap& attributes, std::vector<int>* indices) {
    return guarded([&] {
      const FusedUpdate op{Attributes(attributes)};
      const int n = static_cast<int>(op.num_tensors);
      for (int i = 0; i < 3 * n; ++i) indices->push_back(i);
      for (int i = 4 * n; i < (op.copies ? 5 : 4) * n; ++i) indices->push_back(i);
    });
  }
};

}  // namespace

KOGPT2_CUDA_OPERATOR(kogpt2_cuda_gradient_norm, GradientNorm);
KOGPT2_CUDA_OPERATOR(kogpt2_cuda_fused_update, FusedUpdate).setMutateInputs(FusedUpdate::mutated);

}  // namespace kogpt2
