// When it pays to wake other threads: that takes tens of microseconds once they sleep, as they do soon in a service.
#pragma once
#include <cstdint>

namespace kogpt2 {

constexpr int64_t kManyProducts = 4 << 20;  // multiply-adds that a core makes in about 0.1 ms
constexpr int64_t kManyNumbers = 1 << 18;   // of a matrix or a cache, in any form, that are read once
constexpr int64_t kElementary = 64;         // multiply-adds that take as long as a function such as GELU

inline bool worth_threads(int64_t products, int64_t numbers = 0) {
  return products > kManyProducts || numbers > kManyNumbers;
}

}  // namespace kogpt2
