// SIMT kernels: a matrix-vector product with declared lanes, special functions, and casts.

#include "functions.cuh"

// y[row] = sum over k of a[row][k] x[k] in fp32: lane l of a warp takes k = l, l + 32, ... by fused
// multiply-adds from +0; then lane l adds lane l + 16, l + 8, ..., 1; the sum is added to +0.
template <typename T>
__device__ void gemv(const T* a, const T* x, float* y, int k, int rows, int first) {
  const int row = (blockIdx.x + first) % rows, lane = threadIdx.x;
  float sum = 0.0f;
  for (int at = lane; at < k; at += 32)
    sum = __fmaf_rn((float)a[(size_t)row * k + at], (float)x[at], sum);
  for (int half = 16; half > 0; half /= 2)
    sum = __fadd_rn(sum, __shfl_down_sync(0xFFFFFFFFu, sum, half));
  if (lane == 0) y[row] = __fadd_rn(0.0f, sum);
}

extern "C" __global__ void gemv_fp16(const __half* a, const __half* x, float* y, int k, int rows,
                                     int first) {
  gemv(a, x, y, k, rows, first);
}
extern "C" __global__ void gemv_bf16(const __nv_bfloat16* a, const __nv_bfloat16* x, float* y,
                                     int k, int rows, int first) {
  gemv(a, x, y, k, rows, first);
}
extern "C" __global__ void gemv_fp32(const float* a, const float* x, float* y, int k, int rows,
                                     int first) {
  gemv(a, x, y, k, rows, first);
}

// Special functions of the words start, start + 1, ...
#define UNARY(name, function)                                                                    \
  extern "C" __global__ void name(uint32_t start, uint32_t* out, uint32_t count) {               \
    const uint32_t step = gridDim.x * blockDim.x;                                                \
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)               \
      out[i] = function(__uint_as_float(start + i));                                             \
  }

UNARY(unary_ex2, special_ex2)
UNARY(unary_rcp, special_rcp)
UNARY(unary_rsqrt, special_rsqrt)
UNARY(unary_lg2, special_lg2)
UNARY(unary_tanh, special_tanh)

// fp32 to narrower formats, of the words given.
#define CAST(name, type, function)                                                               \
  extern "C" __global__ void name(const uint32_t* in, type* out, uint32_t count) {               \
    const uint32_t step = gridDim.x * blockDim.x;                                                \
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)               \
      out[i] = function(__uint_as_float(in[i]));                                                 \
  }

CAST(cast_fp16, uint16_t, to_fp16)
CAST(cast_bf16, uint16_t, to_bf16)
CAST(cast_fp8_e4m3_saturate, uint8_t, to_fp8_e4m3_saturate)
CAST(cast_fp8_e5m2_saturate, uint8_t, to_fp8_e5m2_saturate)
