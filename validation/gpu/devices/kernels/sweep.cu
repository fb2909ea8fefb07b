// Functions of every word of 32 bits, digested: a block of words is a sum modulo 2^64 of one mix of
// each (word, result), which no order of addition changes.
//
// Block b is the words b stride, b stride + 1, ...; out[b][thread] holds the sum of every
// blockDim.x-th of them. The mix is the finalizer of splitmix64 (sweeps.py has the same).

#include "functions.cuh"

namespace {

__device__ uint64_t mixed(uint32_t word, uint32_t result) {
  uint64_t z = (uint64_t)word << 32 | result;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

}  // namespace

#define SWEEP(name, function)                                                                    \
  extern "C" __global__ void name(uint64_t* out, uint32_t words, uint32_t stride, int blocks,    \
                                  int first) {                                                   \
    const uint32_t block = (blockIdx.x + first) % blocks;                                        \
    uint64_t sum = 0;                                                                            \
    for (uint32_t i = threadIdx.x; i < words; i += blockDim.x) {                                 \
      const uint32_t word = block * stride + i;                                                  \
      sum += mixed(word, function(__uint_as_float(word)));                                       \
    }                                                                                            \
    out[(size_t)block * blockDim.x + threadIdx.x] = sum;                                         \
  }

SWEEP(sweep_ex2, special_ex2)
SWEEP(sweep_rcp, special_rcp)
SWEEP(sweep_rsqrt, special_rsqrt)
SWEEP(sweep_lg2, special_lg2)
SWEEP(sweep_tanh, special_tanh)
SWEEP(sweep_cast_fp16, to_fp16)
SWEEP(sweep_cast_bf16, to_bf16)
SWEEP(sweep_cast_fp8_e4m3_saturate, to_fp8_e4m3_saturate)
SWEEP(sweep_cast_fp8_e5m2_saturate, to_fp8_e5m2_saturate)
