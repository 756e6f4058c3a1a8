// The library as MXNet and as Python see it.
#include <atomic>

#include "operator.h"

namespace kogpt2 {
namespace {

std::atomic<int> threads{1};

}  // namespace

void set_num_threads(int count) { threads = count; }
int num_threads() { return threads; }

}  // namespace kogpt2

// CPU threads of every later operator call.
extern "C" void kogpt2_set_num_threads(int count) { kogpt2::set_num_threads(count); }

mxnet::ext::MXReturnValue initialize(int version) {
  if (version >= 10900 && version < 20000) return mxnet::ext::MX_SUCCESS;
  MX_ERROR_MSG << "these operators are for MXNet 1.9, not " << version;
  return mxnet::ext::MX_FAIL;
}
