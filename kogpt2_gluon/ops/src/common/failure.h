// Why the last call of an operator failed.
#pragma once
#include <string>

namespace kogpt2 {

// This thread's message; empty if its last call succeeded. MXNet reads it in the same thread, right after the call.
inline std::string& failure() {
  static thread_local std::string* const text = new std::string;  // outlives the thread's other objects
  return *text;
}

}  // namespace kogpt2
