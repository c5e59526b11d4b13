// Vectors by compiler extensions that both gcc (9 or newer) and clang (11 or newer) support.
#pragma once

#include <cfloat>
#include <cstdint>
#include <cstring>

#include "isa.hpp"

#if defined(IMGTOOL_PORTABLE)
#elif defined(__SSE2__)
#define IMGTOOL_SSE2
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#define IMGTOOL_NEON
#include <arm_neon.h>
#endif

static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must be float's: build for x86-64 or aarch64");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "vectors are split into little-endian bytes");

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

// Element i of the result is element places[i] of `a` and `b` concatenated.
template <int... places, class V>
IMGTOOL_INLINE V shuffle(const V& a, const V& b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, places...);
#else
  return __builtin_shuffle(a, b, V{places...});
#endif
}

template <class V>
IMGTOOL_INLINE void store(void* to, const V& v) {
  std::memcpy(to, &v, sizeof v);
}

IMGTOOL_INLINE i32x8 widen(const int16_t* from) { return __builtin_convertvector(load<i16x8>(from), i32x8); }

IMGTOOL_INLINE i16x8 widen_to_16(const uint8_t* from) {
  u8x16 bytes = {};
  std::memcpy(&bytes, from, 8);
  bytes = shuffle<0, 16, 1, 16, 2, 16, 3, 16, 4, 16, 5, 16, 6, 16, 7, 16>(bytes, u8x16{});
  return reinterpret_cast<i16x8>(bytes);         // little-endian
}

IMGTOOL_INLINE i32x8 widen(const uint8_t* from) { return __builtin_convertvector(widen_to_16(from), i32x8); }

// Returns the upper 16 bits of the products.
IMGTOOL_INLINE i16x8 multiply_high(const i16x8& a, int16_t b) {
#if defined(IMGTOOL_SSE2)
  return reinterpret_cast<i16x8>(_mm_mulhi_epi16(reinterpret_cast<__m128i>(a), _mm_set1_epi16(b)));
#elif defined(IMGTOOL_NEON)
  const auto v = reinterpret_cast<int16x8_t>(a);
  return reinterpret_cast<i16x8>(vcombine_s16(vshrn_n_s32(vmull_n_s16(vget_low_s16(v), b), 16),
                                              vshrn_n_s32(vmull_n_s16(vget_high_s16(v), b), 16)));
#else
  return __builtin_convertvector((__builtin_convertvector(a, i32x8) * b) >> 16, i16x8);
#endif
}

// Narrows with saturation.
IMGTOOL_INLINE i16x8 pack(const i32x8& v) {
#if defined(IMGTOOL_SSE2)
  __m128i half[2];
  std::memcpy(half, &v, sizeof half);
  return reinterpret_cast<i16x8>(_mm_packs_epi32(half[0], half[1]));
#elif defined(IMGTOOL_NEON)
  int32x4_t half[2];
  std::memcpy(half, &v, sizeof half);
  return reinterpret_cast<i16x8>(vcombine_s16(vqmovn_s32(half[0]), vqmovn_s32(half[1])));
#else
  const i32x8 low = i32x8{} - 32768, high = i32x8{} + 32767;
  const i32x8 above = v < low ? low : v;
  return __builtin_convertvector(above > high ? high : above, i16x8);
#endif
}

// Narrows to unsigned bytes with saturation, those of `a` first.
IMGTOOL_INLINE u8x16 pack(const i16x8& a, const i16x8& b) {
#if defined(IMGTOOL_SSE2)
  return reinterpret_cast<u8x16>(_mm_packus_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#elif defined(IMGTOOL_NEON)
  return reinterpret_cast<u8x16>(
      vcombine_u8(vqmovun_s16(reinterpret_cast<int16x8_t>(a)), vqmovun_s16(reinterpret_cast<int16x8_t>(b))));
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
