// Copies texts between the slots of caches, for samples and beams that begin alike.
//
// kogpt2_copy_slots(moves, cache, ...; num_caches) -> out
//
//   cache[target, h, begin : end] = cache[source, h, begin : end] for each row (source, target, begin, end) of moves
//
// for all caches (slots, H, capacity, D), which are float32 or uint8 and are written in place, and for all heads h. All
// rows are read before any is written, so that beams can change places. moves (n, 4) int32, with no target twice; out
// (1,) is the number of rows. There is no gradient.
#include <cstring>
#include <vector>

#include "cpu_operator.h"
#include "scratch.h"

namespace kogpt2 {
namespace {

struct Move {
  int64_t source, target, begin, end;
};

struct CopySlots : NoGradient {
  enum Input { kMoves, kCaches };
  enum Output { kOut };
  int64_t num_caches;

  explicit CopySlots(const Attributes& attributes) : num_caches(attributes.integer("num_caches", 1)) {}

  Arrays inputs() const {
    Arrays declared = {{"moves", 'i'}};
    for (int64_t i = 0; i < num_caches; ++i) declared.push_back({"cache", 'w', i});
    return declared;
  }
  Arrays outputs() const { return {{"out", 'f'}}; }
  std::vector<int> written_inputs() const {
    std::vector<int> indices;
    for (int i = 0; i < num_caches; ++i) indices.push_back(kCaches + i);
    return indices;
  }

  void shape(ShapeInference& shapes) const {
    const Shape& moves = shapes.input(kMoves, 2);
    if (moves[1] != 4) shapes.refuse(kMoves, "4 columns: source, target, begin, end");
    const Shape first = shapes.input(kCaches, 4);
    for (int64_t i = 1; i < num_caches; ++i) shapes.settle(kCaches + i, first);
    shapes.output(kOut) = {1};
  }

  void forward(const ForwardCall& call) const {
    const std::vector<int64_t>& shape = call.input(kCaches).shape;
    const int64_t H = shape[1], row = shape[3], capacity = shape[2];
    const std::vector<Move> moves = checked(call.input(kMoves), shape[0], capacity);
    int64_t rows = 0;
    for (const Move& move : moves) rows += move.end - move.begin;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < num_caches * H; ++i) {
      MXTensor& cache = call.input(kCaches + i / H);
      const int64_t size = row * (cache.dtype == mxnet::ext::kUint8 ? 1 : 4);
      char* const head = static_cast<char*>(cache.data_ptr) + i % H * capacity * size;
      const auto place = [&](int64_t slot, int64_t begin) { return head + (slot * H * capacity + begin) * size; };
      Buffer<char> memory(rows * size);
      char* at = memory.data();
      for (const Move& move : moves) {
        const int64_t count = (move.end - move.begin) * size;
        std::memcpy(at, place(move.source, move.begin), static_cast<size_t>(count));
        at += count;
      }
      at = memory.data();
      for (const Move& move : moves) {
        const int64_t count = (move.end - move.begin) * size;
        std::memcpy(place(move.target, move.begin), at, static_cast<size_t>(count));
        at += count;
      }
    }
    floats(call.output(kOut))[0] = static_cast<float>(moves.size());
  }

 private:
  static std::vector<Move> checked(const MXTensor& tensor, int64_t slots, int64_t capacity) {
    const int32_t* const rows = static_cast<const int32_t*>(tensor.data_ptr);
    std::vector<Move> moves;
    std::vector<bool> written(static_cast<size_t>(slots));
    for (int64_t i = 0; i < tensor.shape[0]; ++i) {
      const Move move = {rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]};
      for (const int64_t slot : {move.source, move.target}) {
        if (slot < 0 || slot >= slots) fail("move ", i, " names slot ", slot, " of ", slots);
      }
      if (move.begin < 0 || move.begin > move.end || move.end > capacity) {
        fail("move ", i, " copies places ", move.begin, " to ", move.end, " of ", capacity);
      }
      if (written[move.target]) fail("two moves write slot ", move.target);
      written[move.target] = true;
      moves.push_back(move);
    }
    return moves;
  }
};

}  // namespace

KOGPT2_OPERATOR(kogpt2_copy_slots, CopySlots);

}  // namespace kogpt2
