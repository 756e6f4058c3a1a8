#include "matmul.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <mutex>

#include "dnnl.hpp"
#include "kernels.h"
#include "packed_matmul.h"
#include "vector_math.h"

namespace kogpt2 {
namespace {

using DataType = dnnl::memory::data_type;

dnnl::engine& engine() {
  static dnnl::engine* const instance = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *instance;
}

dnnl::stream& stream() {
  static thread_local dnnl::stream instance(engine());
  return instance;
}

// Identifies a product, so that it is set up once: shapes, strides and types of a, b and c, if it adds, if it has a
// bias, and the number of threads.
using Key = std::array<int64_t, 12>;

struct Product {
  dnnl::memory::desc a, b, c, bias, scratchpad;
  dnnl::matmul primitive;
};

dnnl::memory::desc descriptor(const Matrix& m) {
  return dnnl::memory::desc({m.rows, m.columns}, m.element == Element::kBfloat16 ? DataType::bf16 : DataType::f32,
                            {m.row_stride, m.column_stride});
}

// Scratch memory of oneDNN's own would belong to the thread that set a product up, and MXNet may run it on another one.
dnnl::primitive_attr own_scratch() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

Product set_up(const Matrix& a, const Matrix& b, int64_t c_stride, bool add, bool has_bias) {
  Product product;
  product.a = descriptor(a);
  product.b = descriptor(b);
  product.c = dnnl::memory::desc({a.rows, b.columns}, DataType::f32, {c_stride, 1});
  dnnl::primitive_attr attributes = own_scratch();
  if (add) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  if (has_bias) product.bias = dnnl::memory::desc({1, b.columns}, DataType::f32, dnnl::memory::format_tag::ab);
  const auto description = has_bias
      ? dnnl::matmul::primitive_desc(engine(), product.a, product.b, product.bias, product.c, attributes)
      : dnnl::matmul::primitive_desc(engine(), product.a, product.b, product.c, attributes);
  product.scratchpad = description.scratchpad_desc();
  product.primitive = dnnl::matmul(description);
  return product;
}

std::shared_ptr<const Product> product_for(const Matrix& a, const Matrix& b, int64_t c_stride, bool add,
                                           bool has_bias) {
  static std::mutex* const mutex = new std::mutex;
  static auto* const known = new std::map<Key, std::shared_ptr<const Product>>;
  const Key key = {a.rows, a.columns, b.columns, a.row_stride, a.column_stride, b.row_stride, b.column_stride, c_stride,
                   a.element == Element::kBfloat16, add, has_bias, omp_get_max_threads()};
  const std::lock_guard<std::mutex> lock(*mutex);
  auto& product = (*known)[key];
  if (!product) product = std::make_shared<const Product>(set_up(a, b, c_stride, add, has_bias));
  return product;
}

void copy_or_round_row(const float* from, int64_t count, bool is_bfloat16, void* to) {
  if (is_bfloat16) {
    uint16_t* const rounded = static_cast<uint16_t*>(to);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) rounded[i] = to_bfloat16(from[i]);
  } else {
    std::copy_n(from, count, static_cast<float*>(to));
  }
}

}  // namespace

Element element_of(Precision precision) {
  if (precision == Precision::kFloat32) return Element::kFloat;
  return bfloat16_by_onednn() ? Element::kBfloat16 : Element::kToRound;
}

Factor::Factor(Element element, const float* data, int64_t rows, int64_t columns, int64_t stride) {
  stride = stride ? stride : columns;
  if (element != Element::kBfloat16) {
    matrix_ = {data, element, rows, columns, stride, 1};
    return;
  }
  allocate(element, rows, columns, Side::kRight);
  if (stride == columns && matrix_.row_stride == columns) {
    round_to_bfloat16(data, memory_->as<uint16_t>(), rows * columns);
    return;
  }
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) store_row(row, data + row * stride);
}

void Factor::allocate(Element element, int64_t rows, int64_t columns, Side side) {
  matrix_ = {nullptr, element, rows, columns, columns, 1};
  const size_t size = matrix_.element_bytes();
  if (side == Side::kRight && lies_badly(columns * size)) matrix_.row_stride += 64 / size;
  memory_.emplace(static_cast<size_t>(rows * matrix_.row_stride) * size);
  matrix_.data = memory_->as<void>();
}

void Factor::store_row(int64_t row, const float* values) {
  char* const place = memory_->as<char>() + static_cast<size_t>(row * matrix_.row_stride) * matrix_.element_bytes();
  copy_or_round_row(values, matrix_.columns, matrix_.element == Element::kBfloat16, place);
}

void matmul(const Matrix& a, const Matrix& b, float* c, int64_t c_stride, bool add, const float* bias) {
  if (a.columns != b.rows) fail("a product of (", a.rows, ", ", a.columns, ") and (", b.rows, ", ", b.columns, ")");
  multiply_by(kernel_for(a, b), a, b, c, c_stride ? c_stride : b.columns, add, bias);
}

void multiply_by(Kernel kernel, const Matrix& a, const Matrix& b, float* c, int64_t c_stride, bool add,
                 const float* bias) {
  if (kernel == Kernel::kSharedLeft) return packed_matmul(Shared::kLeft, a, b, c, c_stride, add, bias);
  if (kernel == Kernel::kSharedRight) return packed_matmul(Shared::kRight, a, b, c, c_stride, add, bias);
  const auto product = product_for(a, b, c_stride, add, bias != nullptr);
  Scratch scratchpad(product->scratchpad.get_size());
  std::unordered_map<int, dnnl::memory> arguments = {
      {DNNL_ARG_SRC, dnnl::memory(product->a, engine(), const_cast<void*>(a.data))},
      {DNNL_ARG_WEIGHTS, dnnl::memory(product->b, engine(), const_cast<void*>(b.data))},
      {DNNL_ARG_DST, dnnl::memory(product->c, engine(), c)},
      {DNNL_ARG_SCRATCHPAD, dnnl::memory(product->scratchpad, engine(), scratchpad.as<void>())}};
  if (bias) arguments.emplace(DNNL_ARG_BIAS, dnnl::memory(product->bias, engine(), const_cast<float*>(bias)));
  product->primitive.execute(stream(), arguments);
}

void column_sums(const float* data, int64_t rows, int64_t columns, float* out, bool add) {
  constexpr int64_t kStrip = 64;  // columns that a thread takes at a time: four vectors of sums stay in registers
#pragma omp parallel for schedule(static)
  for (int64_t begin = 0; begin < columns; begin += kStrip) {
    const int64_t width = std::min(kStrip, columns - begin);
    float sums[kStrip] = {};
    for (int64_t row = 0; row < rows; ++row) {
      const float* const from = data + row * columns + begin;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) sums[i] += from[i];
    }
    for (int64_t i = 0; i < width; ++i) out[begin + i] = sums[i] + (add ? out[begin + i] : 0.0f);
  }
}

void round_to_bfloat16(const float* from, uint16_t* to, int64_t count) {
  constexpr int64_t kPiece = 1 << 15;
#pragma omp parallel for schedule(static)
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    copy_or_round_row(from + begin, std::min(kPiece, count - begin), true, to + begin);
  }
}

}  // namespace kogpt2
