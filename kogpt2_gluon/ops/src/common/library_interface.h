// What the operators on CPU and GPU need from MXNet's library interface: attributes, shapes, errors.
//
// The interface has traps, which are handled once for all operators, here and in operator.h:
// - An operator does not learn from MXNet what to do with a gradient (write it, add to it, or nothing). The attribute
//   `req` says it, with one word for each input.
// - Shape inference also runs with shapes that are not known yet, or known in part. MXNet counts an unknown shape as -1
//   axes: if the unknown inputs outnumber the axes of the known ones, MXNet itself fails, with std::bad_alloc.
// - An exception must not cross the interface: guarded() turns it into MXNet's error message.
#pragma once
#include <algorithm>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

// Under nvcc this header includes cuRAND's, for random numbers that are not used here, and not every toolkit has it.
#pragma push_macro("__NVCC__")
#undef __NVCC__
#include "mxnet/lib_api.h"
#pragma pop_macro("__NVCC__")

#include "failure.h"

namespace kogpt2 {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using Tensors = std::vector<MXTensor>;
using Shape = std::vector<unsigned int>;  // in shape inference; an empty one is not known yet
using Shapes = std::vector<Shape>;
using AttributeMap = std::unordered_map<std::string, std::string>;

enum class Request { kNull, kWrite, kAdd };

// Ends the operator with an error for its caller, in one line.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

template <typename Body>
MXReturnValue guarded(const Body& body) {
  failure().clear();
  try {
    body();
    return mxnet::ext::MX_SUCCESS;
  } catch (const std::exception& error) {
    failure() = error.what();
    return mxnet::ext::MX_FAIL;
  }
}

// The keyword arguments of an operator, which arrive as strings.
class Attributes {
 public:
  explicit Attributes(const AttributeMap& map) : map_(map) {}

  bool has(const std::string& key) const { return map_.count(key) != 0; }

  std::string text(const std::string& key, const char* otherwise) const {
    const auto found = map_.find(key);
    return found == map_.end() ? otherwise : found->second;
  }

  double number(const std::string& key, double otherwise) const {
    const auto found = map_.find(key);
    return found == map_.end() ? otherwise : parse(key, found->second);
  }

  double number(const std::string& key) const {
    const auto found = map_.find(key);
    if (found == map_.end()) fail(key, "= is missing");
    return parse(key, found->second);
  }

  int64_t integer(const std::string& key, int64_t least) const { return whole(key, number(key), least); }

  int64_t integer(const std::string& key, int64_t least, int64_t otherwise) const {
    return whole(key, number(key, static_cast<double>(otherwise)), least);
  }

  // `count` numbers between commas.
  std::vector<double> numbers(const std::string& key, size_t count) const {
    std::vector<double> values;
    values.reserve(count);
    for_each_word(key, [&](const std::string& word) { values.push_back(parse(key, word)); });
    if (values.size() != count) fail(key, " has ", values.size(), " numbers, expected ", count);
    return values;
  }

  // What to do with the gradient of each input; without the attribute every gradient is written.
  std::vector<Request> requests(size_t num_inputs) const {
    if (!has("req")) return std::vector<Request>(num_inputs, Request::kWrite);
    std::vector<Request> wanted;
    wanted.reserve(num_inputs);
    for_each_word("req", [&](const std::string& word) { wanted.push_back(request(word)); });
    if (wanted.size() != num_inputs) fail("req='", map_.at("req"), "': expected ", num_inputs, " words, one per input");
    return wanted;
  }

 private:
  static Request request(const std::string& word) {
    if (word == "write") return Request::kWrite;
    if (word == "add") return Request::kAdd;
    if (word == "null") return Request::kNull;
    fail("req: '", word, "' is none of write, add, null");
  }

  static double parse(const std::string& key, const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end) fail(key, "='", text, "' is not a number");
    return value;
  }

  int64_t whole(const std::string& key, double value, int64_t least) const {
    if (value != static_cast<double>(static_cast<int64_t>(value)) || value < static_cast<double>(least)) {
      fail(key, "=", map_.at(key), " is not a whole number from ", least, " on");
    }
    return static_cast<int64_t>(value);
  }

  // body(word) for each word of a list between commas. MXNet reads the attributes about ten times for a call, so
  // nothing but long words allocates memory here.
  template <typename Body>
  void for_each_word(const std::string& key, const Body& body) const {
    const auto found = map_.find(key);
    if (found == map_.end()) return;
    const std::string& all = found->second;
    for (size_t begin = 0; begin < all.size();) {
      const size_t end = std::min(all.find(',', begin), all.size());
      body(all.substr(begin, end - begin));
      begin = end + 1;
    }
  }

  const AttributeMap& map_;
};

inline std::string to_text(const Shape& shape) {
  std::ostringstream text;
  text << "(";
  for (size_t i = 0; i < shape.size(); ++i) text << (i ? ", " : "") << shape[i];
  text << ")";
  return text.str();
}

// An unknown size arrives as 0, or as -1 converted to unsigned.
inline bool is_known(const Shape& shape) {
  for (unsigned size : shape) {
    if (size == 0 || size == UINT_MAX) return false;
  }
  return !shape.empty();
}

// The product of all axes but the last `axes`.
inline int64_t leading(const MXTensor& tensor, size_t axes) {
  int64_t count = 1;
  for (size_t i = 0; i + axes < tensor.shape.size(); ++i) count *= tensor.shape[i];
  return count;
}

inline int64_t num_rows(const MXTensor& tensor) { return leading(tensor, 1); }

}  // namespace kogpt2
