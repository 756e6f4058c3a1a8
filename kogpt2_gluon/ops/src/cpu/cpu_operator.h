// What the CPU operators need in addition to common/operator.h: threads, precision, token ids, gradients of zero.
#pragma once
#include <omp.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "../common/operator.h"

namespace kogpt2 {

// ---- threads --------------------------------------------------------------------------------------------------------

void set_num_threads(int threads);  // for all later calls
int num_threads();

struct Cpu {
  static constexpr char kName[] = "cpu";
  // The number of threads is a setting of the calling thread, and MXNet's thread has 1.
  static void begin() { omp_set_num_threads(num_threads()); }
};

// ---- precision ------------------------------------------------------------------------------------------------------

enum class Precision { kFloat32, kBfloat16 };  // of the factors of matrix products; arrays are float32 either way

inline Precision precision_of(const Attributes& attributes) {
  const std::string name = attributes.text("precision", "float32");
  if (name == "float32") return Precision::kFloat32;
  if (name == "bfloat16") return Precision::kBfloat16;
  fail("precision='", name, "': float32 or bfloat16");
}

// ---- arrays ---------------------------------------------------------------------------------------------------------

inline float* floats(MXTensor& tensor) { return tensor.data<float>(); }

// The gradient of an input that has none, such as token ids or a seed. Nobody wants it; if somebody does, it is 0 and
// not what was in the memory. Every type of such an input has 4 bytes.
inline void write_zeros(const BackwardCall& call, size_t input) {
  if (call.request(input) != Request::kWrite) return;
  MXTensor& gradient = call.gradient(input);
  std::memset(gradient.data_ptr, 0, static_cast<size_t>(gradient.size()) * 4);
}

// Token ids as they come, int32 or float32.
class Ids {
 public:
  explicit Ids(const MXTensor& tensor)
      : data_(tensor.data_ptr), is_int_(tensor.dtype == mxnet::ext::kInt32) {}

  // Id `i`, refused unless it is one of 0 .. size - 1.
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

// ---- operators without a gradient -----------------------------------------------------------------------------------

// The base of the operators for generation. They have a backward pass all the same, because MXNet hybridizes no
// operator without one, not even for inference.
struct NoGradient {
  void backward(const BackwardCall&) const { fail("the operators for generation have no gradient"); }
};

}  // namespace kogpt2

#define KOGPT2_OPERATOR(name, Op) KOGPT2_DEFINE_OPERATOR(name, Op, kogpt2::Cpu)
