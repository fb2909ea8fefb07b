// One tensor-core instruction of a warp per tile: D = A B + C, operands as rows of 32 bytes along k.
//
// a[tile][16][32 B], b[tile][8][32 B] (b transposed: one row for each n), c and d[tile][16][8].
// Every type has the same fragments when they are counted in bytes (PTX ISA, matrix fragments of
// mma.m16n8k8 with tf32, k16 with 16 bits, k32 with 8 bits): lane 4 g + t holds bytes 4 t of rows g
// and g + 8, and bytes 16 + 4 t of the same; of d the columns 2 t and 2 t + 1 of both rows.
// ``tiles`` bounds the grid; ``first`` shifts which block takes which tile, which must change nothing.

#include <cstdint>

namespace {

__device__ uint32_t word(const uint8_t* row, int byte) {
  return *reinterpret_cast<const uint32_t*>(row + byte);
}

struct Fragments {
  uint32_t a[4], b[4];
  int row, column;
};

// ``width`` is the bytes of a row of b: 32, or 64 where a is sparse.
__device__ Fragments load(const uint8_t* a, const uint8_t* b, int tile, int width) {
  const int lane = threadIdx.x, g = lane >> 2, t = lane & 3;
  const uint8_t* left = a + (size_t)tile * 16 * 32;
  const uint8_t* right = b + ((size_t)tile * 8 + g) * width;
  Fragments f;
  f.row = g;
  f.column = 2 * t;
  f.a[0] = word(left + g * 32, 4 * t);
  f.a[1] = word(left + (g + 8) * 32, 4 * t);
  f.a[2] = word(left + g * 32, 16 + 4 * t);
  f.a[3] = word(left + (g + 8) * 32, 16 + 4 * t);
  for (int i = 0; i < 4; ++i) f.b[i] = 16 * i < width ? word(right, 16 * i + 4 * t) : 0;
  return f;
}

__device__ int tile_of(int tiles, int first) {
  return (blockIdx.x + first) % tiles;
}

}  // namespace

// Sums of 32 bits: four of them, at (row, column), (row, column + 1) and both again 8 rows below.
#define WIDE(name, shape, types, ctype, constraint)                                              \
  extern "C" __global__ void name(const uint8_t* a, const uint8_t* b, const ctype* c, ctype* d,  \
                                  int tiles, int first) {                                        \
    const int tile = tile_of(tiles, first);                                                      \
    const Fragments f = load(a, b, tile, 32);                                                    \
    const size_t low = (size_t)tile * 128 + f.row * 8 + f.column, high = low + 64;               \
    ctype s0 = c[low], s1 = c[low + 1], s2 = c[high], s3 = c[high + 1];                          \
    asm volatile("mma.sync.aligned." shape ".row.col." types                                     \
                 " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                        \
                 : "+" constraint(s0), "+" constraint(s1), "+" constraint(s2),                   \
                   "+" constraint(s3)                                                            \
                 : "r"(f.a[0]), "r"(f.a[1]), "r"(f.a[2]), "r"(f.a[3]), "r"(f.b[0]),              \
                   "r"(f.b[1]));                                                                 \
    d[low] = s0;                                                                                 \
    d[low + 1] = s1;                                                                             \
    d[high] = s2;                                                                                \
    d[high + 1] = s3;                                                                            \
  }

// Sums of fp16: two registers of two.
#define HALF(name, shape, types)                                                                 \
  extern "C" __global__ void name(const uint8_t* a, const uint8_t* b, const uint16_t* c,         \
                                  uint16_t* d, int tiles, int first) {                           \
    const int tile = tile_of(tiles, first);                                                      \
    const Fragments f = load(a, b, tile, 32);                                                    \
    const size_t low = (size_t)tile * 128 + f.row * 8 + f.column, high = low + 64;               \
    uint32_t s0 = *reinterpret_cast<const uint32_t*>(c + low);                                   \
    uint32_t s1 = *reinterpret_cast<const uint32_t*>(c + high);                                  \
    asm volatile("mma.sync.aligned." shape ".row.col." types                                     \
                 " {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%0,%1};"                                    \
                 : "+r"(s0), "+r"(s1)                                                            \
                 : "r"(f.a[0]), "r"(f.a[1]), "r"(f.a[2]), "r"(f.a[3]), "r"(f.b[0]),              \
                   "r"(f.b[1]));                                                                 \
    *reinterpret_cast<uint32_t*>(d + low) = s0;                                                  \
    *reinterpret_cast<uint32_t*>(d + high) = s1;                                                 \
  }

WIDE(mma_fp16_fp32, "m16n8k16", "f32.f16.f16.f32", float, "f")
WIDE(mma_bf16_fp32, "m16n8k16", "f32.bf16.bf16.f32", float, "f")
WIDE(mma_tf32_fp32, "m16n8k8", "f32.tf32.tf32.f32", float, "f")
WIDE(mma_int8_int32, "m16n8k32", "s32.s8.s8.s32", int32_t, "r")
HALF(mma_fp16_fp16, "m16n8k16", "f16.f16.f16.f16")
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
WIDE(mma_fp8_e4m3_fp32, "m16n8k32", "f32.e4m3.e4m3.f32", float, "f")
WIDE(mma_fp8_e5m2_fp32, "m16n8k32", "f32.e5m2.e5m2.f32", float, "f")
HALF(mma_fp8_e4m3_fp16, "m16n8k32", "f16.e4m3.e4m3.f16")
HALF(mma_fp8_e5m2_fp16, "m16n8k32", "f16.e5m2.e5m2.f16")
#endif

// 2:4 sparse: a holds the kept half, b rows of 64 bytes, ``metadata`` one word for each lane.
#define SPARSE(name, shape, types, ctype, constraint)                                            \
  extern "C" __global__ void name(const uint8_t* a, const uint8_t* b, const uint32_t* metadata,  \
                                  const ctype* c, ctype* d, int tiles, int first) {              \
    const int tile = tile_of(tiles, first);                                                      \
    const Fragments f = load(a, b, tile, 64);                                                    \
    const uint32_t e = metadata[(size_t)tile * 32 + threadIdx.x];                                \
    const size_t low = (size_t)tile * 128 + f.row * 8 + f.column, high = low + 64;               \
    ctype s0 = c[low], s1 = c[low + 1], s2 = c[high], s3 = c[high + 1];                          \
    asm volatile("mma.sp::ordered_metadata.sync.aligned." shape ".row.col." types                \
                 " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, 0x0;"      \
                 : "+" constraint(s0), "+" constraint(s1), "+" constraint(s2),                   \
                   "+" constraint(s3)                                                            \
                 : "r"(f.a[0]), "r"(f.a[1]), "r"(f.a[2]), "r"(f.a[3]), "r"(f.b[0]),              \
                   "r"(f.b[1]), "r"(f.b[2]), "r"(f.b[3]), "r"(e));                               \
    d[low] = s0;                                                                                 \
    d[low + 1] = s1;                                                                             \
    d[high] = s2;                                                                                \
    d[high + 1] = s3;                                                                            \
  }

SPARSE(sparse_fp16_fp32, "m16n8k32", "f32.f16.f16.f32", float, "f")
SPARSE(sparse_bf16_fp32, "m16n8k32", "f32.bf16.bf16.f32", float, "f")
SPARSE(sparse_int8_int32, "m16n8k64", "s32.s8.s8.s32", int32_t, "r")
