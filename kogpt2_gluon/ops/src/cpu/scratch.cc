#include "scratch.h"

#include <sys/mman.h>

#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

namespace kogpt2 {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// Free blocks by size. They are kept, because every training step asks for the same ones, and the kernel would clear
// fresh pages each time. If sizes grow from call to call, a new large block replaces one that has become too small.
struct Pool {
  std::mutex mutex;
  std::multimap<size_t, void*> free;
};

Pool& pool() {
  static Pool* const instance = new Pool;  // outlives every thread that still computes while the process ends
  return *instance;
}

size_t rounded(size_t bytes) {
  const size_t unit = bytes >= kHugePage ? kHugePage : 4096;
  return (bytes + unit - 1) / unit * unit;
}

void* allocate(size_t size) {
  const size_t alignment = size >= kHugePage ? kHugePage : 4096;
  void* data = std::aligned_alloc(alignment, size);
  if (data == nullptr) throw std::bad_alloc();
  if (size >= kHugePage) madvise(data, size, MADV_HUGEPAGE);  // a refusal costs speed only
  return data;
}

}  // namespace

Scratch::Scratch(size_t bytes) : data_(nullptr), size_(rounded(bytes ? bytes : 1)) {
  Pool& shared = pool();
  {
    const std::lock_guard<std::mutex> lock(shared.mutex);
    const auto found = shared.free.lower_bound(size_);
    if (found != shared.free.end() && found->first <= 2 * size_) {  // a much larger block stays for larger calls
      data_ = found->second;
      size_ = found->first;
      shared.free.erase(found);
    } else if (found != shared.free.begin() && std::prev(found)->first >= kHugePage) {
      std::free(std::prev(found)->second);
      shared.free.erase(std::prev(found));
    }
  }
  if (data_ == nullptr) data_ = allocate(size_);
}

Scratch::~Scratch() {
  Pool& shared = pool();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.free.emplace(size_, data_);
}

}  // namespace kogpt2
