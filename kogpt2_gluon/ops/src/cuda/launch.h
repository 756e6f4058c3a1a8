/* The fused operators on a GPU, as plain C functions: what each one computes, its arrays, and the order of their axes.
 *
 * Every function starts its kernels on `stream`, does not wait for them, and returns the cudaError_t of the start (0
 * means no error; kogpt2_cuda_error_text says it in words). Arrays are in device memory, row by row without gaps. `dtype`
 * is the storage type of the arrays marked T below; the others are float32 or as marked. Arithmetic is float32
 * throughout. Sizes are at least 1; a wrong size or dtype gives cudaErrorInvalidValue. Any size works. If the last axis
 * is a multiple of 8 and arrays begin at multiples of 16 bytes, memory is read and written 128 bits at a time.
 *
 * Nothing depends on the order in which blocks run: a call repeated on the same GPU gives the same bits. Sums over rows
 * have two stages: each block writes its part to `workspace`, and then the parts are added in their order. `workspace` is
 * device memory; the kogpt2_cuda_..._workspace function of the operator returns its size in bytes.
 *
 * Dropout: `mask` below is 0 or 1 / (probability of being kept), drawn again from (seed, site, element) whenever it is
 * needed (../common/philox.h). Element (row, column) of `columns` columns has the index
 * row * (columns rounded up to a multiple of 8) + column. `dropout` points to a Dropout in device memory, which
 * kogpt2_cuda_decode_seed fills; a null pointer means mask = 1.
 *
 * Each gradient has one of MXNet's requests: nothing, write, or add to what is there. If the request is nothing, the
 * array may be null.
 */
#ifndef KOGPT2_CUDA_LAUNCH_H_
#define KOGPT2_CUDA_LAUNCH_H_

#include <cuda_runtime.h>
#include <stdint.h>

#define KOGPT2_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

enum { KOGPT2_FLOAT32 = 0, KOGPT2_FLOAT16 = 1 };
enum { KOGPT2_NULL = 0, KOGPT2_WRITE = 1, KOGPT2_ADD = 2 };

KOGPT2_API const char* kogpt2_cuda_error_text(int error);

/* ---- dropout ---- */

/* Bytes of a Dropout in device memory. */
KOGPT2_API int64_t kogpt2_cuda_dropout_size(void);

/* seed (64,) float32, as MXNet's Dropout(ones(64), p=0.5) gives it: all 1 means prediction, and nothing is dropped.
 * Otherwise bit i of the 64-bit seed is seed[i] > 0.5. `probability` is that of being dropped, from 0 to below 1;
 * `site` is a number that no other dropout of the network has. */
KOGPT2_API int kogpt2_cuda_decode_seed(const float* seed, double probability, uint32_t site, void* dropout,
                                       cudaStream_t stream);

/* ---- bias + GELU + dropout ---- */

/* out = mask * gelu(data + bias), gelu(x) = x Phi(x) = x (1 + erf(x / sqrt 2)) / 2.
 * data, out (rows, columns) T; bias (columns,) T. out may be data.
 * Only data is kept for the backward pass, which adds the bias again: that costs less than a second array. */
KOGPT2_API int kogpt2_cuda_bias_gelu_forward(const void* data, const void* bias, void* out, int64_t rows,
                                             int64_t columns, int dtype, const void* dropout, cudaStream_t stream);

/* data_gradient = mask * gradient * gelu'(data + bias), gelu'(x) = Phi(x) + x phi(x);
 * bias_gradient = the sums of its columns.
 * data, gradient, data_gradient (rows, columns) T; bias, bias_gradient (columns,) T. data_gradient may be gradient. */
KOGPT2_API int kogpt2_cuda_bias_gelu_backward(const void* data, const void* bias, const void* gradient,
                                              void* data_gradient, void* bias_gradient, int data_request,
                                              int bias_request, int64_t rows, int64_t columns, int dtype,
                                              const void* dropout, void* workspace, cudaStream_t stream);
KOGPT2_API int64_t kogpt2_cuda_bias_gelu_workspace(int64_t rows, int64_t columns);

/* ---- bias + dropout + residual ---- */

/* out = residual + mask * (data + bias).
 * data, residual, out (rows, columns) T; bias (columns,) T. out may be data or residual. */
KOGPT2_API int kogpt2_cuda_bias_dropout_residual_forward(const void* data, const void* bias, const void* residual,
                                                         void* out, int64_t rows, int64_t columns, int dtype,
                                                         const void* dropout, cudaStream_t stream);

/* data_gradient = mask * gradient; bias_gradient = the sums of its columns; residual_gradient = gradient.
 * Shapes as forward; data_gradient or residual_gradient may be gradient, but not both. */
KOGPT2_API int kogpt2_cuda_bias_dropout_residual_backward(const void* gradient, void* data_gradient,
                                                          void* bias_gradient, void* residual_gradient,
                                                          int data_request, int bias_request, int residual_request,
                                                          int64_t rows, int64_t columns, int dtype,
                                                          const void* dropout, void* workspace, cudaStream_t stream);
KOGPT2_API int64_t kogpt2_cuda_bias_dropout_residual_workspace(int64_t rows, int64_t columns);

/* ---- LayerNorm ---- */

/* out = gamma * normal + beta, normal = (data - mean) * inverse_std, inverse_std = 1 / sqrt(variance + epsilon), mean
 * and variance of each row (Ba et al., 2016).
 * data, out (rows, columns) T; gamma, beta (columns,) T; mean, inverse_std (rows,) float32, kept for the backward
 * pass. */
KOGPT2_API int kogpt2_cuda_layer_norm_forward(const void* data, const void* gamma, const void* beta, void* out,
                                              float* mean, float* inverse_std, float epsilon, int64_t rows,
                                              int64_t columns, int dtype, cudaStream_t stream);

/* With d = gradient * gamma, and means taken over a row:
 *   data_gradient = inverse_std * (d - mean(d) - normal * mean(d * normal))
 *   gamma_gradient = the column sums of gradient * normal;  beta_gradient = the column sums of gradient.
 * Shapes as forward, and each gradient has the shape and type of what it is the gradient of. data_gradient may be
 * gradient. */
KOGPT2_API int kogpt2_cuda_layer_norm_backward(const void* data, const void* gamma, const void* gradient,
                                               const float* mean, const float* inverse_std, void* data_gradient,
                                               void* gamma_gradient, void* beta_gradient, int data_request,
                                               int gamma_request, int beta_request, int64_t rows, int64_t columns,
                                               int dtype, void* workspace, cudaStream_t stream);
KOGPT2_API int64_t kogpt2_cuda_layer_norm_workspace(int64_t rows, int64_t columns);

/* ---- causal softmax + dropout ---- */

/* out = mask * p, p = softmax(scale * scores) over the keys that a query sees: query i of `queries` sees keys 0 up to
 * keys - queries + i, the last query all of them; p is 0 for the others, whose scores do not matter.
 * scores, out (batch, queries, keys) T, batch being sequences times heads; keys >= queries; log_sum (batch, queries)
 * float32 = log of the sum of exp(scale * scores) over the keys seen, kept for the backward pass. out may be scores
 * where no backward pass follows. The mask's rows are those of (batch * queries, keys). */
KOGPT2_API int kogpt2_cuda_causal_softmax_forward(const void* scores, void* out, float* log_sum, float scale,
                                                  int64_t batch, int64_t queries, int64_t keys, int dtype,
                                                  const void* dropout, cudaStream_t stream);

/* scores_gradient = scale * p * (d - sum of d * p over the row), d = mask * gradient, p = exp(scale * scores -
 * log_sum); 0 for keys not seen.
 * scores, gradient, scores_gradient (batch, queries, keys) T; scores_gradient may be gradient or scores. */
KOGPT2_API int kogpt2_cuda_causal_softmax_backward(const void* scores, const void* gradient, const float* log_sum,
                                                   void* scores_gradient, int scores_request, float scale,
                                                   int64_t batch, int64_t queries, int64_t keys, int dtype,
                                                   const void* dropout, cudaStream_t stream);

/* ---- softmax cross-entropy ---- */

/* log_sum = log of the sum of exp(logits) over a row; loss = log_sum - logits[label].
 * logits (rows, classes) T; labels (rows,) int32; loss, log_sum (rows,) float32. A label below 0 is ignored: loss 0 and
 * gradient 0. A label past the classes gives a loss that is not a number, which stops a training. */
KOGPT2_API int kogpt2_cuda_cross_entropy_forward(const void* logits, const int32_t* labels, float* loss, float* log_sum,
                                                 int64_t rows, int64_t classes, int dtype, cudaStream_t stream);

/* logits_gradient = loss_gradient * (exp(logits - log_sum) - [class is label]).
 * loss_gradient (rows,) float32; logits_gradient (rows, classes) T, which may be logits. */
KOGPT2_API int kogpt2_cuda_cross_entropy_backward(const void* logits, const int32_t* labels, const float* log_sum,
                                                  const float* loss_gradient, void* logits_gradient, int logits_request,
                                                  int64_t rows, int64_t classes, int dtype, cudaStream_t stream);

/* ---- one update of all parameters ---- */

enum { KOGPT2_CHUNK_SIZE = 16384 };

/* One parameter. `master` and both moments are float32, `gradient` has the type `gradient_dtype`. `working_copy` is
 * float16 and gets the new values too, or is null. All arrays have `size` elements. kogpt2_cuda_plan_update fills
 * `first_chunk`. */
typedef struct {
  float* master;
  float* mean;
  float* variance;
  const void* gradient;
  void* working_copy;
  int64_t size;
  int64_t first_chunk;
  float weight_decay;
  int32_t gradient_dtype;
} KoGPT2Tensor;

/* The part that one block works on: elements index * KOGPT2_CHUNK_SIZE and on, of tensors[tensor]. */
typedef struct {
  int32_t tensor;
  int32_t index;
} KoGPT2Chunk;

/* `rule` is a number of enum Rule in ../common/update_rules.h; `step` counts from 1. Gradients are multiplied by
 * inverse_loss_scale * clip_factor before anything else. */
typedef struct {
  int32_t rule;
  int32_t step;
  double learning_rate, beta1, beta2, epsilon;
  double inverse_loss_scale, clip_factor;
} KoGPT2Update;

/* On the host: fills first_chunk of every tensor and, unless it is null, `chunks`; returns how many chunks there are.
 * The caller copies both tables to the device. They stay valid as long as the arrays. */
KOGPT2_API int64_t kogpt2_cuda_plan_update(KoGPT2Tensor* tensors, int64_t num_tensors, KoGPT2Chunk* chunks);

/* result (2,) float64: the sum of the squares of inverse_loss_scale * gradient over all tensors, and the number of
 * elements of it that are not finite. Call it before the update, which may be skipped because of it, and whose
 * clip_factor depends on it. */
KOGPT2_API int kogpt2_cuda_gradient_norm(const KoGPT2Tensor* tensors, const KoGPT2Chunk* chunks, int64_t num_chunks,
                                         double inverse_loss_scale, double* result, void* workspace,
                                         cudaStream_t stream);

/* One step of all tensors by the rule of `update`; ../common/update_rules.h has the mathematics. w is the master, g the
 * scaled gradient, d the tensor's weight_decay, m its mean and v its variance. */
KOGPT2_API int kogpt2_cuda_fused_update(const KoGPT2Tensor* tensors, int64_t num_tensors, const KoGPT2Chunk* chunks,
                                        int64_t num_chunks, const KoGPT2Update* update, void* workspace,
                                        cudaStream_t stream);

/* The workspace of both functions, the gradient norm and the update. */
KOGPT2_API int64_t kogpt2_cuda_update_workspace(int64_t num_tensors, int64_t num_chunks);

#ifdef __cplusplus
}
#endif

#endif  // KOGPT2_CUDA_LAUNCH_H_
