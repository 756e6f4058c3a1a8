// Memory for the duration of one call, from a pool that all threads share.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kogpt2 {

// A block of at least `bytes`, aligned to 64 bytes. A large one is aligned to 2 MiB, with huge pages if the kernel
// gives them.
class Scratch {
 public:
  explicit Scratch(size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <typename T>
  T* as() {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
  size_t size_;
};

// `count` elements of T.
template <typename T>
class Buffer : public Scratch {
 public:
  explicit Buffer(int64_t count) : Scratch(static_cast<size_t>(count) * sizeof(T)) {}
  T* data() { return as<T>(); }
};

}  // namespace kogpt2
