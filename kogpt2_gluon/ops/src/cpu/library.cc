// What MXNet and Python call in the library, in addition to the operators.
#include <atomic>

#include "cpu_operator.h"

namespace kogpt2 {
namespace {

std::atomic<int> threads{1};

}  // namespace

void set_num_threads(int count) { threads = count; }
int num_threads() { return threads; }

}  // namespace kogpt2

// Sets the number of CPU threads for every later operator call.
extern "C" void kogpt2_set_num_threads(int count) { kogpt2::set_num_threads(count); }

mxnet::ext::MXReturnValue initialize(int version) { return kogpt2::check_version(version); }
