// Attention forward of one head in the order online:64;exp2;sums:fp32:4;divide, fp16, 64 wide.
//
// One warp for 16 rows of q; blocks of 64 keys in ascending order (FlashAttention-2):
//   S = q K^T by mma.m16n8k16 from +0;  x = fl(S scale');  m' = max(m, max x)
//   p = exp2(fl(x - m')), alpha = exp2(fl(m - m'));  l = fl(fl(l alpha) + T(p))
//   o = fl(o alpha), then P V onto it by mma.m16n8k16, P = p rounded to fp16;  fl(o / l) at the end.
// T: column c goes to lane c mod 4, each lane adds from +0 in ascending order, then (0+1)+(2+3).
// exp2 is software: every operation one IEEE fp32 operation, none contracted, the coefficients
// those of accelsim's own (numerics/exp_kernels.py, by which test they are compared).
// q [rows][64], k and v [keys][64], o [rows][64]; rows a multiple of 16, keys of 64.

#include <cstdint>
#include <cuda_fp16.h>

namespace {

constexpr int kHead = 64, kKeys = 64, kRows = 16, kLanes = 4;

__device__ float exp2_software(float v) {
  if (!(v >= -127.0f && v < 128.0f)) return v != v ? v : v > 0.0f ? __uint_as_float(0x7F800000u) : 0.0f;
  const float n = __fsub_rn(__fadd_rn(v, 12582912.0f), 12582912.0f);
  const float f = __fsub_rn(v, n);
  float p = __fmaf_rn(0x1.448fbcp-13f, f, 0x1.5f47b0p-10f);
  p = __fmaf_rn(p, f, 0x1.3b29aap-7f);
  p = __fmaf_rn(p, f, 0x1.c6aed0p-5f);
  p = __fmaf_rn(p, f, 0x1.ebfbe0p-3f);
  p = __fmaf_rn(p, f, 0x1.62e430p-1f);
  p = __fmaf_rn(p, f, 1.0f);
  const double power = __longlong_as_double((1023LL + (long long)n) << 52);
  const double wide = (double)p * power;
  return wide >= 0x1p-126 ? (float)wide : 0.0f;
}

__device__ uint32_t pair(const __half* low, const __half* high) {
  return (uint32_t)__half_as_ushort(*low) | (uint32_t)__half_as_ushort(*high) << 16;
}

__device__ void step(float (&s)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
               " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The fragment of A at k = 16 i of 16 rows of ``width`` halves.
__device__ void left(uint32_t (&a)[4], const __half* rows, int width, int i) {
  const int g = threadIdx.x >> 2, t = threadIdx.x & 3, k = 16 * i + 2 * t;
  a[0] = pair(rows + g * width + k, rows + g * width + k + 1);
  a[1] = pair(rows + (g + 8) * width + k, rows + (g + 8) * width + k + 1);
  a[2] = pair(rows + g * width + k + 8, rows + g * width + k + 9);
  a[3] = pair(rows + (g + 8) * width + k + 8, rows + (g + 8) * width + k + 9);
}

}  // namespace

extern "C" __global__ void attention_fp16(const __half* q, const __half* k, const __half* v,
                                          float* out, float factor, int keys, int blocks,
                                          int first) {
  __shared__ float x[kRows][kKeys], alpha[kRows];
  __shared__ __half p[kRows][kKeys];
  const int g = threadIdx.x >> 2, t = threadIdx.x & 3, row = threadIdx.x;
  const int block = (blockIdx.x + first) % blocks;
  const __half* mine = q + (size_t)block * kRows * kHead;
  float top = __uint_as_float(0xFF800000u), total = 0.0f, o[kHead / 8][4] = {};
  for (int from = 0; from < keys; from += kKeys) {
    for (int j = 0; j < kKeys / 8; ++j) {
      const __half* column = k + (size_t)(from + 8 * j + g) * kHead;
      float s[4] = {};
      for (int i = 0; i < kHead / 16; ++i) {
        uint32_t a[4];
        left(a, mine, kHead, i);
        const __half* at = column + 16 * i + 2 * t;
        step(s, a, pair(at, at + 1), pair(at + 8, at + 9));
      }
      x[g][8 * j + 2 * t] = __fmul_rn(s[0], factor);
      x[g][8 * j + 2 * t + 1] = __fmul_rn(s[1], factor);
      x[g + 8][8 * j + 2 * t] = __fmul_rn(s[2], factor);
      x[g + 8][8 * j + 2 * t + 1] = __fmul_rn(s[3], factor);
    }
    __syncwarp();
    if (row < kRows) {
      float most = top;
      for (int c = 0; c < kKeys; ++c) most = fmaxf(most, x[row][c]);
      float lane[kLanes] = {};
      for (int c = 0; c < kKeys; ++c) {
        const float weight = exp2_software(__fsub_rn(x[row][c], most));
        lane[c % kLanes] = __fadd_rn(lane[c % kLanes], weight);
        p[row][c] = __float2half_rn(weight);
      }
      alpha[row] = exp2_software(__fsub_rn(top, most));
      const float sum = __fadd_rn(__fadd_rn(lane[0], lane[1]), __fadd_rn(lane[2], lane[3]));
      total = __fadd_rn(__fmul_rn(total, alpha[row]), sum);
      top = most;
    }
    __syncwarp();
    for (int j = 0; j < kHead / 8; ++j) {
      o[j][0] = __fmul_rn(o[j][0], alpha[g]);
      o[j][1] = __fmul_rn(o[j][1], alpha[g]);
      o[j][2] = __fmul_rn(o[j][2], alpha[g + 8]);
      o[j][3] = __fmul_rn(o[j][3], alpha[g + 8]);
      for (int i = 0; i < kKeys / 16; ++i) {
        uint32_t a[4];
        left(a, &p[0][0], kKeys, i);
        const __half* at = v + (size_t)(from + 16 * i + 2 * t) * kHead + 8 * j + g;
        step(o[j], a, pair(at, at + kHead), pair(at + 8 * kHead, at + 9 * kHead));
      }
    }
    __syncwarp();
  }
  if (row < kRows) alpha[row] = total;
  __syncwarp();
  for (int j = 0; j < kHead / 8; ++j) {
    float* to = out + ((size_t)block * kRows + g) * kHead + 8 * j + 2 * t;
    to[0] = __fdiv_rn(o[j][0], alpha[g]);
    to[1] = __fdiv_rn(o[j][1], alpha[g]);
    to[8 * kHead] = __fdiv_rn(o[j][2], alpha[g + 8]);
    to[8 * kHead + 1] = __fdiv_rn(o[j][3], alpha[g + 8]);
  }
}
