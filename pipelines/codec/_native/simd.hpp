// Vectors of the compiler's own kind, and the versions of a function that it makes per instruction set, of which the
// loader picks one at run time. None of them fuses multiplications with additions, so that all give the same bytes.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define IMGTOOL_CLONES __attribute__((target_clones("avx2", "sse4.1", "default")))
#else
#define IMGTOOL_CLONES
#endif
#define IMGTOOL_INLINE inline __attribute__((always_inline))

namespace imgtool {

using i32x8 = int32_t __attribute__((vector_size(32)));
using f32x8 = float __attribute__((vector_size(32)));
using i16x8 = int16_t __attribute__((vector_size(16)));
using u8x16 = uint8_t __attribute__((vector_size(16)));
using u8x8 = uint8_t __attribute__((vector_size(8)));

template <class V>
IMGTOOL_INLINE V load(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class V>
IMGTOOL_INLINE void store(void* to, const V& v) {
  std::memcpy(to, &v, sizeof v);
}

IMGTOOL_INLINE i32x8 widen(const int16_t* from) { return __builtin_convertvector(load<i16x8>(from), i32x8); }

IMGTOOL_INLINE i16x8 widen_to_16(const uint8_t* from) {
  u8x16 bytes = {};
  std::memcpy(&bytes, from, 8);
  bytes = __builtin_shuffle(bytes, u8x16{}, u8x16{0, 16, 1, 16, 2, 16, 3, 16, 4, 16, 5, 16, 6, 16, 7, 16});
  return reinterpret_cast<i16x8>(bytes);         // little-endian
}

IMGTOOL_INLINE i32x8 widen(const uint8_t* from) { return __builtin_convertvector(widen_to_16(from), i32x8); }

// The upper 16 bits of the products.
IMGTOOL_INLINE i16x8 multiply_high(const i16x8& a, int16_t b) {
#if defined(__SSE2__)
  return reinterpret_cast<i16x8>(_mm_mulhi_epi16(reinterpret_cast<__m128i>(a), _mm_set1_epi16(b)));
#else
  return __builtin_convertvector((__builtin_convertvector(a, i32x8) * b) >> 16, i16x8);
#endif
}

// Narrows with saturation. Left to itself, the compiler takes the vectors apart.
IMGTOOL_INLINE i16x8 pack(const i32x8& v) {
#if defined(__SSE2__)
  __m128i half[2];
  std::memcpy(half, &v, sizeof half);
  return reinterpret_cast<i16x8>(_mm_packs_epi32(half[0], half[1]));
#else
  const i32x8 low = i32x8{} - 32768, high = i32x8{} + 32767;
  const i32x8 above = v < low ? low : v;
  return __builtin_convertvector(above > high ? high : above, i16x8);
#endif
}

// The same to unsigned bytes, those of `a` first.
IMGTOOL_INLINE u8x16 pack(const i16x8& a, const i16x8& b) {
#if defined(__SSE2__)
  return reinterpret_cast<u8x16>(_mm_packus_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
  u8x16 out;
  for (int i = 0; i < 8; ++i) {
    out[i] = static_cast<uint8_t>(a[i] < 0 ? 0 : a[i] > 255 ? 255 : a[i]);
    out[i + 8] = static_cast<uint8_t>(b[i] < 0 ? 0 : b[i] > 255 ? 255 : b[i]);
  }
  return out;
#endif
}

}  // namespace imgtool
