#include "kernels.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <thread>

namespace kogpt2 {
namespace {

// The three products of a linear map y = x W^T, by how their factors lie in memory.
enum Layout { kForward, kDataGradient, kWeightGradient };

using Product = std::array<int64_t, 4>;  // layout, M, N, K

struct Choices {
  std::mutex mutex;
  std::map<Product, Kernel> kernels;
};

Choices& choices() {
  static Choices* const instance = new Choices;
  return *instance;
}

std::atomic<bool> onednn_for_bfloat16{true};
std::atomic<Kernel> for_all{Kernel::kByRule};

Product product_of(const Matrix& a, const Matrix& b) {
  const Layout layout = a.column_stride != 1 ? kWeightGradient : b.column_stride != 1 ? kForward : kDataGradient;
  return {layout, a.rows, b.columns, a.columns};
}

bool lies_badly_for_onednn(const Matrix& b) {
  return b.column_stride == 1 && lies_badly(static_cast<size_t>(b.row_stride) * b.element_bytes());
}

}  // namespace

bool bfloat16_by_onednn() { return onednn_for_bfloat16; }

Kernel kernel_for(const Matrix& a, const Matrix& b) {
  const bool onednn_can = a.element == b.element && a.element != Element::kToRound;
  if (onednn_can && a.element == Element::kBfloat16) return Kernel::kOneDnn;
  {
    Choices& known = choices();
    const std::lock_guard<std::mutex> lock(known.mutex);
    const auto found = known.kernels.find(product_of(a, b));
    if (found != known.kernels.end() && (onednn_can || found->second != Kernel::kOneDnn)) return found->second;
  }
  const Kernel wanted = for_all;
  const bool by_onednn = wanted == Kernel::kOneDnn || (wanted == Kernel::kByRule && !lies_badly_for_onednn(b));
  if (onednn_can && by_onednn) return Kernel::kOneDnn;
  return a.rows < b.columns ? Kernel::kSharedLeft : Kernel::kSharedRight;
}

namespace {

// Factors of a product of made-up numbers.
class Sample {
 public:
  Sample(Layout layout, int64_t M, int64_t N, int64_t K)
      : layout_(layout), M_(M), N_(N), K_(K), left_(M * K), right_(K * N), product_(M * N) {
    for (int64_t i = 0; i < M * K; ++i) left_.data()[i] = static_cast<float>(i % 251) - 125.0f;
    for (int64_t i = 0; i < K * N; ++i) right_.data()[i] = static_cast<float>(i % 241) - 120.0f;
    if (layout == kWeightGradient) {
      apart_.emplace(Precision::kFloat32, K, N);
      for (int64_t k = 0; k < K; ++k) apart_->store_row(k, right_.data() + k * N);
    }
  }

  // Seconds of the product by a kernel, with the rounding of its factors.
  double seconds(Kernel kernel, Element element) {
    const auto began = std::chrono::steady_clock::now();
    const bool left_across = layout_ == kWeightGradient, right_across = layout_ == kForward;
    const Factor a(element, left_.data(), left_across ? K_ : M_, left_across ? M_ : K_);
    const Factor b(element, right_.data(), right_across ? N_ : K_, right_across ? K_ : N_);
    Matrix right = right_across ? b.transposed() : b.matrix();
    if (apart_ && element != Element::kBfloat16) {
      right = apart_->matrix();
      right.element = element;
    }
    multiply_by(kernel, left_across ? a.transposed() : a.matrix(), right, product_.data(), N_, false, nullptr);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - began;
    return taken.count();
  }

 private:
  Layout layout_;
  int64_t M_, N_, K_;
  Buffer<float> left_, right_, product_;
  std::optional<Factor> apart_;  // the right factor of a weight's gradient as operators make it, where it stays float32
};

}  // namespace
}  // namespace kogpt2

// ---- what Python calls ----------------------------------------------------------------------------------------------

// bfloat16 factors are stored as such and multiplied by oneDNN (1), or rounded while they are packed (0).
extern "C" void kogpt2_set_bfloat16_kernel(int by_onednn) { kogpt2::onednn_for_bfloat16 = by_onednn != 0; }

// The kernel of every product that has no choice of its own: kByRule, kOneDnn or kPacked. Forgets all choices.
extern "C" void kogpt2_set_kernel(int kernel) {
  kogpt2::Choices& known = kogpt2::choices();
  const std::lock_guard<std::mutex> lock(known.mutex);
  known.kernels.clear();
  kogpt2::for_all = static_cast<kogpt2::Kernel>(kernel);
}

// The kernel of one product: kOneDnn, kSharedLeft or kSharedRight.
extern "C" void kogpt2_set_product_kernel(int layout, int64_t M, int64_t N, int64_t K, int kernel) {
  kogpt2::Choices& known = kogpt2::choices();
  const std::lock_guard<std::mutex> lock(known.mutex);
  known.kernels[{layout, M, N, K}] = static_cast<kogpt2::Kernel>(kernel);
}

namespace kogpt2 {
namespace {

// Seconds of the fastest of `trials` products by oneDNN, kSharedLeft and kSharedRight, which take turns, after one of
// each that does not count. Infinite for oneDNN if it cannot compute the product.
std::array<double, 3> time_kernels(Sample& sample, bool in_bfloat16, int trials) {
  const Kernel kernels[] = {Kernel::kOneDnn, Kernel::kSharedLeft, Kernel::kSharedRight};
  std::array<double, 3> best;
  best.fill(std::numeric_limits<double>::infinity());
  bool onednn_can = true;
  for (int trial = 0; trial <= trials; ++trial) {
    for (int i = onednn_can ? 0 : 1; i < 3; ++i) {
      const Element in_16_bits = i == 0 ? Element::kBfloat16 : Element::kToRound;
      try {
        const double taken = sample.seconds(kernels[i], in_bfloat16 ? in_16_bits : Element::kFloat);
        if (trial > 0) best[i] = std::min(best[i], taken);
      } catch (const std::exception&) {  // an instruction set for which oneDNN has no product of bfloat16
        onednn_can = false;
      }
    }
  }
  return best;
}

}  // namespace
}  // namespace kogpt2

// Times a product with each kernel: seconds[0], [1] and [2] as time_kernels() above returns them. It runs in a thread of
// its own, with which its team of OpenMP threads ends: a second team in Python's thread would slow down all later
// operators (machine/runtime.py).
extern "C" void kogpt2_time_product(int layout, int64_t M, int64_t N, int64_t K, int in_bfloat16, int trials,
                                    double* seconds) {
  std::thread([=] {
    omp_set_num_threads(kogpt2::num_threads());
    kogpt2::Sample sample(static_cast<kogpt2::Layout>(layout), M, N, K);
    const std::array<double, 3> best = kogpt2::time_kernels(sample, in_bfloat16 != 0, trials);
    std::copy(best.begin(), best.end(), seconds);
  }).join();
}
