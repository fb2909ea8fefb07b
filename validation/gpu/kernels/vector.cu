// SIMT kernels: a matrix-vector product with declared lanes, special functions, and casts.

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

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
#define UNARY(name, instruction)                                                                 \
  extern "C" __global__ void name(uint32_t start, uint32_t* out, uint32_t count) {               \
    const uint32_t step = gridDim.x * blockDim.x;                                                \
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {             \
      float result;                                                                              \
      asm volatile(instruction " %0, %1;" : "=f"(result) : "f"(__uint_as_float(start + i)));     \
      out[i] = __float_as_uint(result);                                                          \
    }                                                                                            \
  }

UNARY(unary_ex2, "ex2.approx.ftz.f32")
UNARY(unary_rcp, "rcp.approx.ftz.f32")
UNARY(unary_rsqrt, "rsqrt.approx.ftz.f32")
UNARY(unary_lg2, "lg2.approx.ftz.f32")
UNARY(unary_tanh, "tanh.approx.f32")

// fp32 to narrower formats, of the words given.
#define CAST(name, type, expression)                                                             \
  extern "C" __global__ void name(const uint32_t* in, type* out, uint32_t count) {               \
    const uint32_t step = gridDim.x * blockDim.x;                                                \
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {             \
      const float x = __uint_as_float(in[i]);                                                    \
      out[i] = expression;                                                                       \
    }                                                                                            \
  }

CAST(cast_fp16, uint16_t, __half_as_ushort(__float2half_rn(x)))
CAST(cast_bf16, uint16_t, __bfloat16_as_ushort(__float2bfloat16_rn(x)))
CAST(cast_fp8_e4m3_saturate, uint8_t, __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3))
CAST(cast_fp8_e5m2_saturate, uint8_t, __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2))

// The same of consecutive words, for the exhaustive digests.
extern "C" __global__ void words(uint32_t start, uint32_t* out, uint32_t count) {
  const uint32_t step = gridDim.x * blockDim.x;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
    out[i] = start + i;
}
