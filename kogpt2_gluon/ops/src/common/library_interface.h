// What operators on CPU and on GPU alike need of MXNet's library interface: attributes, shapes, errors.
//
// The interface has traps, met here once for all operators:
// - it does not tell an operator what to do with a gradient (write, add or nothing): `req`, an attribute with a word for
//   each input, does;
// - shape inference also runs with shapes that are not known yet, or known in part (MXNet counts an unknown shape as -1
//   axes: where unknown inputs outnumber the axes of the known ones it fails by itself, with std::bad_alloc);
// - an exception must not cross it: guarded() turns one into MXNet's error message.
#pragma once
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

// Under nvcc this header wants cuRAND's, for random numbers that are not used here; not every toolkit has it.
#pragma push_macro("__NVCC__")
#undef __NVCC__
#include "mxnet/lib_api.h"
#pragma pop_macro("__NVCC__")

namespace kogpt2 {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using Tensors = std::vector<MXTensor>;
using Shape = std::vector<unsigned int>;  // as shape inference has it; empty: not known yet
using Shapes = std::vector<Shape>;
using AttributeMap = std::unordered_map<std::string, std::string>;

enum class Request { kNull, kWrite, kAdd };

// Ends an operator with a fault of its caller's, in one line.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

template <typename Body>
MXReturnValue guarded(const Body& body) {
  try {
    body();
    return mxnet::ext::MX_SUCCESS;
  } catch (const std::exception& error) {
    MX_ERROR_MSG << error.what();
    return mxnet::ext::MX_FAIL;
  }
}

// The keyword arguments of an operator, which arrive as strings.
class Attributes {
 public:
  explicit Attributes(const AttributeMap& map) : map_(map) {}

  bool has(const std::string& key) const { return map_.count(key) != 0; }

  std::string text(const std::string& key, const std::string& otherwise) const {
    return has(key) ? map_.at(key) : otherwise;
  }

  double number(const std::string& key, double otherwise) const {
    return has(key) ? parse(key, map_.at(key)) : otherwise;
  }

  double number(const std::string& key) const {
    if (!has(key)) fail(key, "= is missing");
    return parse(key, map_.at(key));
  }

  int64_t integer(const std::string& key, int64_t least) const {
    const double value = number(key);
    if (value != static_cast<double>(static_cast<int64_t>(value)) || value < static_cast<double>(least)) {
      fail(key, "=", map_.at(key), " is not a whole number from ", least, " on");
    }
    return static_cast<int64_t>(value);
  }

  int64_t integer(const std::string& key, int64_t least, int64_t otherwise) const {
    return has(key) ? integer(key, least) : otherwise;
  }

  // `count` numbers between commas.
  std::vector<double> numbers(const std::string& key, size_t count) const {
    std::vector<double> values;
    for (const std::string& word : words(key)) values.push_back(parse(key, word));
    if (values.size() != count) fail(key, " has ", values.size(), " numbers, expected ", count);
    return values;
  }

  // What is wanted of the gradient of each input; without the attribute every one is written.
  std::vector<Request> requests(size_t num_inputs) const {
    if (!has("req")) return std::vector<Request>(num_inputs, Request::kWrite);
    std::vector<Request> wanted;
    for (const std::string& word : words("req")) wanted.push_back(request(word));
    if (wanted.size() != num_inputs) fail("req='", map_.at("req"), "': ", num_inputs, " words wanted, one per input");
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

  std::vector<std::string> words(const std::string& key) const {
    std::vector<std::string> found;
    std::istringstream stream(text(key, ""));
    for (std::string word; std::getline(stream, word, ',');) found.push_back(word);
    return found;
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

// A size that is not known arrives as 0, or as -1 made unsigned.
inline bool is_known(const Shape& shape) {
  for (unsigned size : shape) {
    if (size == 0 || size == UINT_MAX) return false;
  }
  return !shape.empty();
}

// All axes but the last `axes` as one.
inline int64_t leading(const MXTensor& tensor, size_t axes) {
  int64_t count = 1;
  for (size_t i = 0; i + axes < tensor.shape.size(); ++i) count *= tensor.shape[i];
  return count;
}

inline int64_t num_rows(const MXTensor& tensor) { return leading(tensor, 1); }

}  // namespace kogpt2
