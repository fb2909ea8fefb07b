// The 16-bit and 8-bit types of CUDA's headers, as far as the reference kernels use them.
#pragma once
struct __half {
  _Float16 x;
  operator float() const { return (float)x; }
};
struct __nv_bfloat16 {
  uint16_t x;
  operator float() const { return __uint_as_float((uint32_t)x << 16); }
};
inline __half __float2half_rn(float x) { return {(_Float16)x}; }
inline uint16_t __half_as_ushort(__half x) {
  return x.x != x.x ? 0x7FFF : bits_as<uint16_t>(x.x);
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  const uint32_t word = __float_as_uint(x);
  if (x != x) return {0x7FFF};
  return {(uint16_t)((word + 0x7FFF + (word >> 16 & 1)) >> 16)};
}
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.x; }
enum { __NV_SATFINITE, __NV_E4M3, __NV_E5M2 };
inline uint8_t __nv_cvt_float_to_fp8(float x, int, int kind) {
  const Fmt f = kind == __NV_E4M3 ? format("e4m3") : format("e5m2");
  const uint32_t most = kind == __NV_E4M3 ? 0x7E : 0x7B, sign = __float_as_uint(x) >> 31 << 7;
  if (x != x) return 0x7F;
  if (std::isinf(x)) return sign | most;
  const Number n = number(format("f32"), __float_as_uint(x) & 0x7FFFFFFF);
  const uint32_t code = rounded(f, f.mantissa, true, n.significand, n.exponent);
  return sign | (code > most ? most : code);
}
