// CUDA C++ on a CPU, as far as the reference kernels use it: blocks one after the other, the threads
// of a block side by side, inline assembly by its meaning. Tensor cores follow the published model.
#pragma once
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#define __global__ KERNEL_ENTRY
#define __device__ static
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __CUDA_ARCH__ 900

struct Index {
  unsigned x;
};
inline thread_local Index threadIdx, blockIdx, blockDim, gridDim;
inline std::barrier<>* together = nullptr;
inline void meet() { together->arrive_and_wait(); }
inline void __syncthreads() { meet(); }
inline void __syncwarp() { meet(); }

template <typename To, typename From>
To bits_as(From x) {
  To y;
  static_assert(sizeof(To) == sizeof(From));
  std::memcpy(&y, &x, sizeof y);
  return y;
}
inline float __uint_as_float(uint32_t x) { return bits_as<float>(x); }
inline uint32_t __float_as_uint(float x) { return bits_as<uint32_t>(x); }
inline double __longlong_as_double(long long x) { return bits_as<double>(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __shfl_down_sync(unsigned, float x, int by) {
  static float held[128];
  held[threadIdx.x] = x;
  meet();
  const float got = threadIdx.x + by < 32 ? held[threadIdx.x + by] : x;
  meet();
  return got;
}

// Addresses of shared memory: 4 KiB for each array that is asked for.
inline std::map<const void*, uint64_t> windows;
inline std::vector<const uint8_t*> bases;
inline std::mutex windows_lock;
inline uint64_t __cvta_generic_to_shared(const void* at) {
  const std::lock_guard<std::mutex> held(windows_lock);
  if (!windows.count(at)) {
    windows[at] = bases.size() << 12;
    bases.push_back(static_cast<const uint8_t*>(at));
  }
  return windows[at];
}

// --- formats

struct Fmt {
  int bits, exponent, mantissa, padding;
};
inline Fmt format(const std::string& name) {
  if (name == "f16") return {16, 5, 10, 0};
  if (name == "bf16") return {16, 8, 7, 0};
  if (name == "tf32") return {32, 8, 10, 13};
  if (name == "e4m3") return {8, 4, 3, 0};
  if (name == "e5m2") return {8, 5, 2, 0};
  return {32, 8, 23, 0};
}
struct Number {  // significand 2^exponent
  int64_t significand;
  int exponent, top;
};
inline Number number(Fmt f, uint32_t word) {
  word >>= f.padding;
  const int bias = (1 << (f.exponent - 1)) - 1, field = word >> f.mantissa & ((1 << f.exponent) - 1);
  int64_t size = (word & ((1u << f.mantissa) - 1)) + (field ? 1ll << f.mantissa : 0);
  const int top = (field ? field : 1) - bias;
  return {word >> (f.exponent + f.mantissa) & 1 ? -size : size, top - f.mantissa, top};
}
inline uint32_t rounded(Fmt f, int kept, bool nearest, int64_t total, int unit) {
  if (total == 0) return 0;
  const int bias = (1 << (f.exponent - 1)) - 1;
  uint64_t size = std::llabs(total);
  int top = unit + 63 - __builtin_clzll(size);
  if (top < 1 - bias) top = 1 - bias;
  const int right = top - kept - unit;
  uint64_t whole = right > 62 ? 0 : right >= 0 ? size >> right : size << -right;
  if (nearest && right > 0 && right < 62) {
    const uint64_t rest = size - (whole << right), half = 1ull << (right - 1);
    if (rest > half || (rest == half && (whole & 1))) ++whole;
  }
  uint64_t code = whole << (f.mantissa - kept);
  if (code >> f.mantissa) code += (uint64_t)(top - (1 - bias)) << f.mantissa;
  // e4m3 has numbers where others have Inf.
  const uint64_t inf = ((1ull << f.exponent) - (f.exponent == 4 ? 0 : 1)) << f.mantissa;
  if (code > inf) code = inf;
  return (uint32_t)code | (total < 0 ? 1u << (f.bits - 1) : 0);
}

struct Sum {
  std::string out;
  int fraction, kept;
  bool nearest;
};
// One step: terms of a and b from word c.
inline uint32_t step(const Sum& s, Fmt f, const std::vector<uint32_t>& a,
                     const std::vector<uint32_t>& b, uint32_t c) {
  const Number held = number(format(s.out), c);
  int top = held.significand ? held.top : -126;
  std::vector<Number> terms;
  for (size_t i = 0; i < a.size(); ++i) {
    const Number x = number(f, a[i]), y = number(f, b[i]);
    const Number one = {x.significand * y.significand, x.exponent + y.exponent, x.top + y.top};
    if (!one.significand) continue;
    terms.push_back(one);
    top = std::max(top, one.top);
  }
  if (held.significand) terms.push_back(held);
  int64_t total = 0;
  for (const Number& one : terms) {
    const int left = one.exponent - (top - s.fraction);
    const int64_t size = std::llabs(one.significand);
    const int64_t cut = left >= 0 ? size << left : left < -62 ? 0 : size >> -left;
    total += one.significand < 0 ? -cut : cut;
  }
  return rounded(format(s.out), s.kept, s.nearest, total, top - s.fraction);
}

// --- inline assembly

struct Out {
  void* at;
};
struct In {
  uint64_t bits;
};
inline In in(float x) { return {bits_as<uint32_t>(x)}; }
template <typename T>
In in(T x) { return {(uint64_t)x}; }

struct Slot {
  uint32_t a[4], b[4], c[4], e;
};
inline Slot slots[128];

inline uint32_t part(uint32_t word, int byte, int width) {
  return width == 4 ? word : word >> (8 * (byte % 4)) & ((1u << (8 * width)) - 1);
}
inline uint32_t of_a(int base, int row, int byte, int width) {
  const Slot& s = slots[base + row % 8 * 4 + byte % 16 / 4];
  return part(s.a[byte / 16 * 2 + row / 8], byte, width);
}
inline uint32_t of_b(int base, int n, int byte, int width) {
  return part(slots[base + n * 4 + byte % 16 / 4].b[byte / 16], byte, width);
}

inline std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> found;
  size_t at = 0;
  for (size_t to; (to = text.find('.', at)) != std::string::npos; at = to + 1)
    found.push_back(text.substr(at, to - at));
  found.push_back(text.substr(at));
  return found;
}

// d = c + a b of one output, by the types of an instruction.
inline uint32_t product(const std::string& out, const std::string& type, bool group, bool sparse,
                        const std::vector<uint32_t>& a, const std::vector<uint32_t>& b, uint32_t c) {
  if (out == "s32") {
    int32_t sum = (int32_t)c;
    for (size_t i = 0; i < a.size(); ++i) sum += (int8_t)a[i] * (int8_t)b[i];
    return (uint32_t)sum;
  }
  const bool narrow = type == "e4m3" || type == "e5m2", half = out == "f16";
  Sum s = {out, narrow && group ? 13 : 25, half ? 10 : narrow && group ? 13 : 23, half};
  if (!narrow || group) return step(s, format(type), a, b, c);
  uint32_t sum = 0;
  for (int late = 0; late < 2; ++late) {
    std::vector<uint32_t> x, y;
    for (int k = 0; k < 32; ++k)
      if ((k % 4 >= 2) == late) x.push_back(a[k]), y.push_back(b[k]);
    sum = step(s, format(type), x, y, sum);
  }
  if (!half) return __float_as_uint(__uint_as_float(c) + __uint_as_float(sum));
  const float total = (float)bits_as<_Float16>((uint16_t)c) + (float)bits_as<_Float16>((uint16_t)sum);
  return bits_as<uint16_t>((_Float16)total);
}

inline uint32_t held(const Out& out, int i, bool half) {
  uint32_t word;
  std::memcpy(&word, out.at, 4);
  return half ? word >> (16 * (i % 2)) & 0xFFFF : word;
}
inline void give(const std::vector<Out>& outs, const uint32_t* d, bool half) {
  for (size_t i = 0; i < outs.size(); ++i) {
    const uint32_t word = half ? d[2 * i] | d[2 * i + 1] << 16 : d[i];
    std::memcpy(outs[i].at, &word, 4);
  }
}

// mma.sync and mma.sp: fragments as the PTX ISA has them, counted in bytes.
inline void warp_mma(const std::string& name, const std::vector<Out>& outs,
                     const std::vector<In>& ins) {
  const auto parts = words(name);
  const size_t n = parts.size();
  const std::string out = parts[n - 4], type = parts[n - 3];
  const bool half = out == "f16", sparse = name.find(".sp") != std::string::npos;
  const int lane = threadIdx.x, base = lane / 32 * 32, g = lane % 32 / 4, t = lane % 4;
  Slot& mine = slots[lane];
  for (int i = 0; i < 4; ++i) mine.a[i] = (uint32_t)ins[i].bits;
  for (int i = 0; i < (sparse ? 4 : 2); ++i) mine.b[i] = (uint32_t)ins[4 + i].bits;
  mine.e = sparse ? (uint32_t)ins[8].bits : 0;
  for (int i = 0; i < 4; ++i) mine.c[i] = held(outs[half ? i / 2 : i], i, half);
  meet();
  const int width = type == "s8" ? 1 : format(type).bits / 8;
  uint32_t d[4];
  for (int i = 0; i < 4; ++i) {
    const int row = g + i / 2 * 8, column = 2 * t + i % 2;
    std::vector<uint32_t> a, b;
    for (int at = 0; at < 32 / width; ++at) {
      int k = at;
      if (sparse) {  // 16 bits of row g below 16 of row g + 8, further along k in the next lane
        const int group = at / 2, word = slots[base + g * 4 + group / 4].e;
        k = group * 4 + (word >> (16 * (row / 8) + 4 * (group % 4) + 2 * (at % 2)) & 3);
      }
      a.push_back(of_a(base, row, at * width, width));
      b.push_back(of_b(base, column, k * width, width));
    }
    d[i] = product(out, type, false, sparse, a, b, mine.c[i]);
  }
  meet();
  give(outs, d, half);
}

inline uint32_t of_shared(uint64_t descriptor, int row, int byte, int width) {
  const uint64_t address = (descriptor & 0x3FFF) << 4;
  const uint64_t leading = (descriptor >> 16 & 0x3FFF) << 4, stride = (descriptor >> 32 & 0x3FFF) << 4;
  const uint8_t* base = bases.at(address >> 12) + (address & 0xFFF);
  uint32_t word = 0;
  std::memcpy(&word, base + row / 8 * stride + byte / 16 * leading + row % 8 * 16 + byte % 16, width);
  return word;
}

inline void group_mma(const std::string& name, const std::vector<Out>& outs,
                      const std::vector<In>& ins) {
  const auto parts = words(name);
  const std::string out = parts[parts.size() - 3], type = parts[parts.size() - 2];
  const bool half = out == "f16", sparse = name.find(".sp") != std::string::npos;
  const int row0 = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column0 = threadIdx.x % 4 * 2;
  const int width = type == "s8" ? 1 : format(type).bits / 8;
  slots[threadIdx.x].e = sparse ? (uint32_t)ins[2].bits : 0;
  meet();
  uint32_t d[4];
  for (int i = 0; i < 4; ++i) {
    std::vector<uint32_t> a, b;
    for (int at = 0; at < 32 / width; ++at) {
      int k = at;
      if (sparse) {  // as of mma.sp
        const int group = at / 2, word = slots[threadIdx.x / 4 * 4 + group / 4].e;
        k = group * 4 + (word >> (16 * (i / 2) + 4 * (group % 4) + 2 * (at % 2)) & 3);
      }
      a.push_back(of_shared(ins[0].bits, row0 + i / 2 * 8, at * width, width));
      b.push_back(of_shared(ins[1].bits, column0 + i % 2, k * width, width));
    }
    d[i] = product(out, type, true, false, a, b, held(outs[half ? i / 2 : i], i, half));
  }
  meet();
  give(outs, d, half);
}

inline void assembly(const char* text, const std::vector<Out>& outs, const std::vector<In>& ins) {
  const std::string all = text;
  const size_t group = all.find("wgmma.mma_async"), warp = all.find("mma.s");
  if (group != std::string::npos)
    return group_mma(all.substr(group, all.find(' ', group) - group), outs, ins);
  if (warp == 0) return warp_mma(all.substr(0, all.find(' ')), outs, ins);
  if (outs.empty()) return;  // fences
  const float x = __uint_as_float((uint32_t)ins[0].bits);
  const std::string name = all.substr(0, all.find('.'));
  const float y = name == "ex2" ? std::exp2(x) : name == "rcp" ? 1 / x : name == "lg2" ? std::log2(x)
                  : name == "tanh" ? std::tanh(x) : 1 / std::sqrt(x);
  std::memcpy(outs[0].at, &y, 4);
}

template <typename Kernel>
void run(int blocks, int threads, bool alone, Kernel kernel) {
  for (int block = 0; block < blocks; ++block) {
    const auto one = [&](int thread) {
      threadIdx = {(unsigned)thread}, blockIdx = {(unsigned)block};
      blockDim = {(unsigned)threads}, gridDim = {(unsigned)blocks};
      kernel();
    };
    if (alone) {
      for (int thread = 0; thread < threads; ++thread) one(thread);
      continue;
    }
    std::barrier<> here(threads);
    together = &here;
    std::vector<std::thread> all;
    for (int thread = 0; thread < threads; ++thread) all.emplace_back(one, thread);
    for (auto& each : all) each.join();
  }
}
