// One instruction of a warp group per tile: D = A B + D, m64n8, both operands in shared memory.
//
// a[tile][64][32 B], b[tile][8][32 B] (one row for each n), c and d[tile][64][8]; a row of 32 bytes
// along k whatever the type. Without swizzle a matrix is made of core matrices of 8 rows x 16 bytes,
// each contiguous (PTX ISA, wgmma shared memory layout): here the two along k are 128 bytes apart
// (leading dimension offset) and the next 8 rows 256 bytes further (stride dimension offset).
// d: warp w has rows 16 w..; lane 4 g + t columns 2 t, 2 t + 1 of rows g and g + 8.
// 2:4 sparse: a holds the kept half, b rows of 64 bytes; the metadata of a warp's 16 rows lies as that
// of mma.sp does.

#include <cstdint>

namespace {

constexpr int kRowBytes = 32, kCoreBytes = 128;

// Where a byte of a matrix [rows][width] lies among its core matrices.
__device__ int core_offset(int row, int byte, int width) {
  return (row / 8) * (width / 16) * kCoreBytes + (byte / 16) * kCoreBytes + (row % 8) * 16 + byte % 16;
}

__device__ void stage(uint8_t* shared, const uint8_t* rows, int count, int width) {
  for (int at = threadIdx.x * 4; at < count * width; at += blockDim.x * 4) {
    const int to = core_offset(at / width, at % width, width);
    *reinterpret_cast<uint32_t*>(shared + to) = *reinterpret_cast<const uint32_t*>(rows + at);
  }
}

__device__ uint64_t descriptor(const uint8_t* shared, int width) {
  const uint64_t address = static_cast<uint64_t>(__cvta_generic_to_shared(shared));
  return (address & 0x3FFFF) >> 4 | (uint64_t)(kCoreBytes >> 4) << 16 |
         (uint64_t)(width / 16 * kCoreBytes >> 4) << 32;
}

__device__ void ready() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ void done() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

}  // namespace

#define STAGED(width)                                                                            \
  __shared__ __align__(128) uint8_t shared_a[64 * kRowBytes], shared_b[8 * width];               \
  const int tile = (blockIdx.x + first) % tiles;                                                 \
  stage(shared_a, a + (size_t)tile * 64 * kRowBytes, 64, kRowBytes);                             \
  stage(shared_b, b + (size_t)tile * 8 * width, 8, width);                                       \
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;                                    \
  const size_t low = (size_t)tile * 512 + (warp * 16 + lane / 4) * 8 + lane % 4 * 2;             \
  const size_t high = low + 64;                                                                  \
  const uint64_t left = descriptor(shared_a, kRowBytes), right = descriptor(shared_b, width);

#define WIDE(name, shape, types, rest, ctype, constraint)                                        \
  extern "C" __global__ void __launch_bounds__(128, 1)                                           \
      name(const uint8_t* a, const uint8_t* b, const ctype* c, ctype* d, int tiles, int first) { \
    STAGED(kRowBytes)                                                                            \
    ctype s0 = c[low], s1 = c[low + 1], s2 = c[high], s3 = c[high + 1];                          \
    ready();                                                                                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"                                      \
                 "wgmma.mma_async.sync.aligned." shape "." types                                 \
                 " {%0,%1,%2,%3}, %4, %5, p" rest ";\n}\n"                                       \
                 : "+" constraint(s0), "+" constraint(s1), "+" constraint(s2),                   \
                   "+" constraint(s3)                                                            \
                 : "l"(left), "l"(right)                                                         \
                 : "memory");                                                                    \
    done();                                                                                      \
    d[low] = s0;                                                                                 \
    d[low + 1] = s1;                                                                             \
    d[high] = s2;                                                                                \
    d[high + 1] = s3;                                                                            \
  }

#define HALF(name, shape, types, rest)                                                           \
  extern "C" __global__ void __launch_bounds__(128, 1)                                           \
      name(const uint8_t* a, const uint8_t* b, const uint16_t* c, uint16_t* d, int tiles,        \
           int first) {                                                                          \
    STAGED(kRowBytes)                                                                            \
    uint32_t s0 = *reinterpret_cast<const uint32_t*>(c + low);                                   \
    uint32_t s1 = *reinterpret_cast<const uint32_t*>(c + high);                                  \
    ready();                                                                                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"                                      \
                 "wgmma.mma_async.sync.aligned." shape "." types " {%0,%1}, %2, %3, p" rest      \
                 ";\n}\n"                                                                        \
                 : "+r"(s0), "+r"(s1)                                                            \
                 : "l"(left), "l"(right)                                                         \
                 : "memory");                                                                    \
    done();                                                                                      \
    *reinterpret_cast<uint32_t*>(d + low) = s0;                                                  \
    *reinterpret_cast<uint32_t*>(d + high) = s1;                                                 \
  }

#define SPARSE(name, shape, types, rest, ctype, constraint)                                      \
  extern "C" __global__ void __launch_bounds__(128, 1)                                           \
      name(const uint8_t* a, const uint8_t* b, const uint32_t* metadata, const ctype* c,         \
           ctype* d, int tiles, int first) {                                                     \
    STAGED(2 * kRowBytes)                                                                        \
    const uint32_t e = metadata[(size_t)tile * 128 + threadIdx.x];                               \
    ctype s0 = c[low], s1 = c[low + 1], s2 = c[high], s3 = c[high + 1];                          \
    ready();                                                                                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"                                      \
                 "wgmma.mma_async.sp.sync.aligned." shape "." types                              \
                 " {%0,%1,%2,%3}, %4, %5, %6, 0, p" rest ";\n}\n"                                \
                 : "+" constraint(s0), "+" constraint(s1), "+" constraint(s2),                   \
                   "+" constraint(s3)                                                            \
                 : "l"(left), "l"(right), "r"(e)                                                 \
                 : "memory");                                                                    \
    done();                                                                                      \
    d[low] = s0;                                                                                 \
    d[low + 1] = s1;                                                                             \
    d[high] = s2;                                                                                \
    d[high + 1] = s3;                                                                            \
  }

WIDE(wgmma_fp16_fp32, "m64n8k16", "f32.f16.f16", ", 1, 1, 0, 0", float, "f")
WIDE(wgmma_bf16_fp32, "m64n8k16", "f32.bf16.bf16", ", 1, 1, 0, 0", float, "f")
WIDE(wgmma_tf32_fp32, "m64n8k8", "f32.tf32.tf32", ", 1, 1", float, "f")
WIDE(wgmma_fp8_e4m3_fp32, "m64n8k32", "f32.e4m3.e4m3", ", 1, 1", float, "f")
WIDE(wgmma_fp8_e5m2_fp32, "m64n8k32", "f32.e5m2.e5m2", ", 1, 1", float, "f")
WIDE(wgmma_int8_int32, "m64n8k32", "s32.s8.s8", "", int32_t, "r")
HALF(wgmma_fp16_fp16, "m64n8k16", "f16.f16.f16", ", 1, 1, 0, 0")
HALF(wgmma_fp8_e4m3_fp16, "m64n8k32", "f16.e4m3.e4m3", ", 1, 1")
HALF(wgmma_fp8_e5m2_fp16, "m64n8k32", "f16.e5m2.e5m2", ", 1, 1")
SPARSE(wgmma_sparse_fp16_fp32, "m64n8k32", "f32.f16.f16", ", 1, 1, 0, 0", float, "f")
SPARSE(wgmma_sparse_bf16_fp32, "m64n8k32", "f32.bf16.bf16", ", 1, 1, 0, 0", float, "f")
SPARSE(wgmma_sparse_fp8_e4m3_fp32, "m64n8k64", "f32.e4m3.e4m3", ", 1, 1", float, "f")
SPARSE(wgmma_sparse_int8_int32, "m64n8k64", "s32.s8.s8", "", int32_t, "r")
