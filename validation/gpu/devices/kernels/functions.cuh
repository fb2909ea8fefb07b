// Special functions and casts as bit patterns of their results, the one definition of each.

#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#define SPECIAL(name, instruction)                                                               \
  __device__ inline uint32_t name(float x) {                                                     \
    float result;                                                                                \
    asm volatile(instruction " %0, %1;" : "=f"(result) : "f"(x));                                \
    return __float_as_uint(result);                                                              \
  }

SPECIAL(special_ex2, "ex2.approx.ftz.f32")
SPECIAL(special_rcp, "rcp.approx.ftz.f32")
SPECIAL(special_rsqrt, "rsqrt.approx.ftz.f32")
SPECIAL(special_lg2, "lg2.approx.ftz.f32")
SPECIAL(special_tanh, "tanh.approx.f32")

__device__ inline uint16_t to_fp16(float x) {
  return __half_as_ushort(__float2half_rn(x));
}
__device__ inline uint16_t to_bf16(float x) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
__device__ inline uint8_t to_fp8_e4m3_saturate(float x) {
  return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}
__device__ inline uint8_t to_fp8_e5m2_saturate(float x) {
  return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2);
}
