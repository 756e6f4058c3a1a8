// One update of all parameters (the mathematics is in common/update_rules.h), and the norm of their gradients. A block
// works on a chunk of one tensor, so that a network of many small tensors and a few large ones fills the GPU with one
// launch.
//
// LAMB needs each tensor's norms between the moments and the weights. Its first launch writes the moments and each
// chunk's squares, the second adds these up for each tensor, and the third computes the direction again and takes the
// step.
#include "../common/update_rules.h"
#include "pack.cuh"

namespace kogpt2 {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// The elements of a tensor that a block works on.
struct Piece {
  KoGPT2Tensor tensor;
  int64_t begin;
  int count;
  bool vector;

  __device__ __forceinline__ Piece(const KoGPT2Tensor* tensors, const KoGPT2Chunk& chunk)
      : tensor(tensors[chunk.tensor]) {
    begin = static_cast<int64_t>(chunk.index) * KOGPT2_CHUNK_SIZE;
    const int64_t left = tensor.size - begin;
    count = left < KOGPT2_CHUNK_SIZE ? static_cast<int>(left) : KOGPT2_CHUNK_SIZE;
    const uintptr_t arrays = address(tensor.master) | address(tensor.mean) | address(tensor.variance) |
                             address(tensor.gradient) | address(tensor.working_copy);
    vector = arrays % 16 == 0;
  }

  __device__ __forceinline__ static uintptr_t address(const void* array) { return reinterpret_cast<uintptr_t>(array); }

  __device__ __forceinline__ void load_gradient(int at, int here, bool whole, float (&to)[kPack]) const {
    if (tensor.gradient_dtype == KOGPT2_FLOAT16) {
      load(static_cast<const __half*>(tensor.gradient) + begin + at, here, whole, to);
    } else {
      load(static_cast<const float*>(tensor.gradient) + begin + at, here, whole, to);
    }
  }
};

// Calls body(at, count, whole) for this thread's packs of the piece.
template <typename Body>
__device__ __forceinline__ void for_pieces(const Piece& piece, const Body& body) {
  for (int at = threadIdx.x * kPack; at < piece.count; at += kThreads * kPack) {
    const int here = piece.count - at < kPack ? piece.count - at : kPack;
    body(at, here, piece.vector && here == kPack);
  }
}

// ---- norm -----------------------------------------------------------------------------------------------------------

// partials (chunks, 2): the sum of squares, and the elements that are not finite.
__global__ void __launch_bounds__(kThreads)
    chunk_norms(const KoGPT2Tensor* tensors, const KoGPT2Chunk* chunks, const float scale, float* partials) {
  __shared__ float shared[2][kWarps];
  const Piece piece(tensors, chunks[blockIdx.x]);
  float squares = 0.0f, bad = 0.0f;  // a chunk's count is far below 2^24, so a float holds it exactly
  for_pieces(piece, [&](int at, int here, bool whole) {
    float g[kPack];
    piece.load_gradient(at, here, whole, g);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      g[k] *= scale;
      squares += g[k] * g[k];
      bad += fabsf(g[k]) <= 3.402823466e38f ? 0.0f : 1.0f;
    }
  });
  block_sums(squares, bad, shared);
  if (threadIdx.x == 0) {
    partials[2 * static_cast<int64_t>(blockIdx.x)] = squares;
    partials[2 * static_cast<int64_t>(blockIdx.x) + 1] = bad;
  }
}

// Adds partials (count, 2) up in float64; thread 0 gets both sums. All threads call it.
__device__ __forceinline__ void add_partials(const float* partials, int64_t count, double& first, double& second) {
  __shared__ double shared[2][kThreads];
  double a = 0.0, b = 0.0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    a += partials[2 * i];
    b += partials[2 * i + 1];
  }
  shared[0][threadIdx.x] = a;
  shared[1][threadIdx.x] = b;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) {
      shared[0][threadIdx.x] += shared[0][threadIdx.x + half];
      shared[1][threadIdx.x] += shared[1][threadIdx.x + half];
    }
  }
  first = shared[0][0];
  second = shared[1][0];
}

__global__ void __launch_bounds__(kThreads)
    total_norm(const float* partials, const int64_t num_chunks, double* result) {
  double squares, bad;
  add_partials(partials, num_chunks, squares, bad);
  if (threadIdx.x > 0) return;
  result[0] = squares;
  result[1] = bad;
}

// ---- update ---------------------------------------------------------------------------------------------------------

// Writes a weight, which is in registers, and its float16 copy.
__device__ __forceinline__ void store_weights(const Piece& piece, int at, int here, bool whole,
                                              const float (&weight)[kPack]) {
  store(weight, piece.tensor.master + piece.begin + at, here, whole);
  if (piece.tensor.working_copy != nullptr) {
    store(weight, static_cast<__half*>(piece.tensor.working_copy) + piece.begin + at, here, whole);
  }
}

// The moments of a pack after this step, in registers and written to memory.
__device__ __forceinline__ void step_moments(const Piece& piece, const UpdateConstants& constants, int at, int here,
                                             bool whole, float (&weight)[kPack], float (&m)[kPack],
                                             float (&v)[kPack]) {
  float g[kPack];
  piece.load_gradient(at, here, whole, g);
  load(piece.tensor.master + piece.begin + at, here, whole, weight);
  load(piece.tensor.mean + piece.begin + at, here, whole, m);
  load(piece.tensor.variance + piece.begin + at, here, whole, v);
#pragma unroll
  for (int k = 0; k < kPack; ++k) update_moments(constants, g[k], weight[k], piece.tensor.weight_decay, m[k], v[k]);
  store(m, piece.tensor.mean + piece.begin + at, here, whole);
  store(v, piece.tensor.variance + piece.begin + at, here, whole);
}

// A whole step of AdamW, BERTAdam or Adam.
__global__ void __launch_bounds__(kThreads)
    adam_kernel(const KoGPT2Tensor* tensors, const KoGPT2Chunk* chunks, const UpdateConstants constants) {
  const Piece piece(tensors, chunks[blockIdx.x]);
  for_pieces(piece, [&](int at, int here, bool whole) {
    float weight[kPack], m[kPack], v[kPack];
    step_moments(piece, constants, at, here, whole, weight, m, v);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      weight[k] -= constants.rate * update_direction(constants, m[k], v[k], weight[k], piece.tensor.weight_decay);
    }
    store_weights(piece, at, here, whole, weight);
  });
}

// LAMB, first: the moments, and partials (chunks, 2) of the squares of weights and directions.
__global__ void __launch_bounds__(kThreads)
    lamb_moments(const KoGPT2Tensor* tensors, const KoGPT2Chunk* chunks, const UpdateConstants constants,
                 float* partials) {
  __shared__ float shared[2][kWarps];
  const Piece piece(tensors, chunks[blockIdx.x]);
  float weights = 0.0f, directions = 0.0f;
  for_pieces(piece, [&](int at, int here, bool whole) {
    float weight[kPack], m[kPack], v[kPack];
    step_moments(piece, constants, at, here, whole, weight, m, v);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const float direction = update_direction(constants, m[k], v[k], weight[k], piece.tensor.weight_decay);
      weights += weight[k] * weight[k];
      directions += k < here ? direction * direction : 0.0f;  // with epsilon 0 the rest of a pack is 0 / 0
    }
  });
  block_sums(weights, directions, shared);
  if (threadIdx.x == 0) {
    partials[2 * static_cast<int64_t>(blockIdx.x)] = weights;
    partials[2 * static_cast<int64_t>(blockIdx.x) + 1] = directions;
  }
}

// LAMB, second: ratios (tensors,), a block on a tensor, whose chunks follow one another.
__global__ void __launch_bounds__(kThreads)
    lamb_ratios(const KoGPT2Tensor* tensors, const float* partials, float* ratios) {
  const KoGPT2Tensor tensor = tensors[blockIdx.x];
  const int64_t count = (tensor.size + KOGPT2_CHUNK_SIZE - 1) / KOGPT2_CHUNK_SIZE;
  double weights, directions;
  add_partials(partials + 2 * tensor.first_chunk, count, weights, directions);
  if (threadIdx.x == 0) ratios[blockIdx.x] = trust_ratio(weights, directions);
}

// LAMB, third: the weights.
__global__ void __launch_bounds__(kThreads)
    lamb_weights(const KoGPT2Tensor* tensors, const KoGPT2Chunk* chunks, const UpdateConstants constants,
                 const float* ratios) {
  const KoGPT2Chunk chunk = chunks[blockIdx.x];
  const Piece piece(tensors, chunk);
  const float rate = constants.rate * ratios[chunk.tensor];
  for_pieces(piece, [&](int at, int here, bool whole) {
    float weight[kPack], m[kPack], v[kPack];
    load(piece.tensor.master + piece.begin + at, here, whole, weight);
    load(piece.tensor.mean + piece.begin + at, here, whole, m);
    load(piece.tensor.variance + piece.begin + at, here, whole, v);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      weight[k] -= rate * update_direction(constants, m[k], v[k], weight[k], piece.tensor.weight_decay);
    }
    store_weights(piece, at, here, whole, weight);
  });
}

// The constants of one step. False where `update` has no valid rule or step.
bool make_constants(const KoGPT2Update& update, UpdateConstants& constants) {
  if (update.step < 1 || !is_rule(update.rule)) return false;
  const Rule rule = static_cast<Rule>(update.rule);
  const BiasCorrection correction(rule, update.beta1, update.beta2, update.step);
  constants.gradient_scale = static_cast<float>(update.inverse_loss_scale * update.clip_factor);
  constants.beta1 = static_cast<float>(update.beta1);
  constants.one_minus_beta1 = static_cast<float>(1.0 - update.beta1);
  constants.beta2 = static_cast<float>(update.beta2);
  constants.one_minus_beta2 = static_cast<float>(1.0 - update.beta2);
  constants.correction = static_cast<float>(correction.root / correction.mean);
  constants.epsilon = static_cast<float>(correction.epsilon(rule, update.epsilon));
  constants.rate = static_cast<float>(update.learning_rate);
  constants.decay_in_gradient = properties(rule).decay_in_gradient;
  return true;
}

}  // namespace
}  // namespace kogpt2

extern "C" {

int64_t kogpt2_cuda_plan_update(KoGPT2Tensor* tensors, int64_t num_tensors, KoGPT2Chunk* chunks) {
  int64_t total = 0;
  for (int64_t t = 0; t < num_tensors; ++t) {
    const int64_t count = kogpt2::ceil_divide(tensors[t].size, KOGPT2_CHUNK_SIZE);
    tensors[t].first_chunk = total;
    for (int64_t i = 0; chunks != nullptr && i < count; ++i) {
      chunks[total + i] = {static_cast<int32_t>(t), static_cast<int32_t>(i)};
    }
    total += count;
  }
  return total;
}

int64_t kogpt2_cuda_update_workspace(int64_t num_tensors, int64_t num_chunks) {
  return (2 * num_chunks + num_tensors) * static_cast<int64_t>(sizeof(float));
}

int kogpt2_cuda_gradient_norm(const KoGPT2Tensor* tensors, const KoGPT2Chunk* chunks, int64_t num_chunks,
                              double inverse_loss_scale, double* result, void* workspace, cudaStream_t stream) {
  using namespace kogpt2;
  if (num_chunks < 1) return cudaErrorInvalidValue;
  float* const partials = static_cast<float*>(workspace);
  const int error = start(chunk_norms, dim3(static_cast<unsigned>(num_chunks)), dim3(kThreads), stream, tensors, chunks,
                          inverse_loss_scale, partials);
  if (error != cudaSuccess) return error;
  return start(total_norm, dim3(1), dim3(kThreads), stream, partials, num_chunks, result);
}

int kogpt2_cuda_fused_update(const KoGPT2Tensor* tensors, int64_t num_tensors, const KoGPT2Chunk* chunks,
                             int64_t num_chunks, const KoGPT2Update* update, void* workspace, cudaStream_t stream) {
  using namespace kogpt2;
  UpdateConstants constants;
  if (num_tensors < 1 || num_chunks < 1 || !make_constants(*update, constants)) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(num_chunks)), block(kThreads);
  if (!properties(static_cast<Rule>(update->rule)).has_trust_ratio) {
    return start(adam_kernel, grid, block, stream, tensors, chunks, constants);
  }

  float* const partials = static_cast<float*>(workspace);
  float* const ratios = partials + 2 * num_chunks;
  int error = start(lamb_moments, grid, block, stream, tensors, chunks, constants, partials);
  if (error == cudaSuccess) {
    error = start(lamb_ratios, dim3(static_cast<unsigned>(num_tensors)), block, stream, tensors, partials, ratios);
  }
  if (error == cudaSuccess) error = start(lamb_weights, grid, block, stream, tensors, chunks, constants, ratios);
  return error;
}

}  // extern "C"
