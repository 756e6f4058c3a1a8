// Many arrays as pieces of one size, for operators that take any number of them.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "operator.h"

namespace kogpt2 {

constexpr int64_t kPieceSize = 1 << 16;

// `count` elements of array `array`, from element `begin` on.
struct Piece {
  int64_t array, begin, count;
};

// Every `step`-th tensor cut into pieces of at most kPieceSize elements, in order; Piece::array counts those taken.
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

// The attribute that every operator over many arrays has.
inline int64_t num_arrays(const Attributes& attributes) {
  return attributes.integer("num_arrays", 1);
}

}  // namespace kogpt2
