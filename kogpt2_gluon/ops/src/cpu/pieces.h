// Many arrays, cut into pieces of one size, for the operators that take any number of arrays.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu_operator.h"

namespace kogpt2 {

constexpr int64_t kPieceSize = 1 << 16;

// `count` elements of array `array`, from element `begin` on.
struct Piece {
  int64_t array, begin, count;
};

// Cuts every `step`-th tensor into pieces of at most kPieceSize elements, in order. Piece::array counts these tensors.
inline std::vector<Piece> pieces_of(const Tensors& tensors, size_t step) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < tensors.size(); i += step) {
    const int64_t size = tensors[i].size();
    for (int64_t begin = 0; begin < size; begin += kPieceSize) {
      pieces.push_back({static_cast<int64_t>(i / step), begin, std::min(kPieceSize, size - begin)});
    }
  }
  return pieces;
}

}  // namespace kogpt2
