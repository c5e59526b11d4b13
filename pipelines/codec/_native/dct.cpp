#include "dct.hpp"

#include "simd.hpp"

namespace imgtool {
namespace {

constexpr int kBits = 13, kPassBits = 2;       // libjpeg's CONST_BITS and PASS1_BITS

constexpr int32_t fix(double x) { return static_cast<int32_t>(x * (1 << kBits) + 0.5); }

// The constants of Loeffler, Ligtenberg and Moschytz's factorisation (ICASSP 1989), named as in libjpeg's jidctint.c.
constexpr int32_t k0298 = fix(0.298631336), k0390 = fix(0.390180644), k0541 = fix(0.541196100), k0765 = fix(0.765366865),
                  k0899 = fix(0.899976223), k1175 = fix(1.175875602), k1501 = fix(1.501321110), k1847 = fix(1.847759065),
                  k1961 = fix(1.961570560), k2053 = fix(2.053119869), k2562 = fix(2.562915447), k3072 = fix(3.072711026);

IMGTOOL_INLINE void transpose(i32x8* a) {
  i32x8 b[kSide], c[kSide];
  for (int i = 0; i < kSide; i += 2) {             // pairs of rows, then of pairs, then halves
    b[i] = shuffle<0, 8, 1, 9, 4, 12, 5, 13>(a[i], a[i + 1]);
    b[i + 1] = shuffle<2, 10, 3, 11, 6, 14, 7, 15>(a[i], a[i + 1]);
  }
  for (int i = 0; i < kSide; i += 4)
    for (int j = 0; j < 2; ++j) {
      c[i + 2 * j] = shuffle<0, 1, 8, 9, 4, 5, 12, 13>(b[i + j], b[i + j + 2]);
      c[i + 2 * j + 1] = shuffle<2, 3, 10, 11, 6, 7, 14, 15>(b[i + j], b[i + j + 2]);
    }
  for (int i = 0; i < 4; ++i) {
    a[i] = shuffle<0, 1, 2, 3, 8, 9, 10, 11>(c[i], c[i + 4]);
    a[i + 4] = shuffle<4, 5, 6, 7, 12, 13, 14, 15>(c[i], c[i + 4]);
  }
}

// One pass along the columns; results are rounded and shifted right by `shift`.
template <int shift>
IMGTOOL_INLINE void inverse_pass(i32x8* a) {
  const i32x8 half = i32x8{} + (1 << (shift - 1));
  i32x8 z1 = (a[2] + a[6]) * k0541;
  const i32x8 even2 = z1 - a[6] * k1847, even3 = z1 + a[2] * k0765;
  const i32x8 even0 = ((a[0] + a[4]) << kBits) + half, even1 = ((a[0] - a[4]) << kBits) + half;
  const i32x8 e0 = even0 + even3, e3 = even0 - even3, e1 = even1 + even2, e2 = even1 - even2;
  const i32x8 z5 = (a[7] + a[3] + a[5] + a[1]) * k1175;
  const i32x8 z3 = z5 - (a[7] + a[3]) * k1961, z4 = z5 - (a[5] + a[1]) * k0390;
  z1 = (a[7] + a[1]) * -k0899;
  const i32x8 z2 = (a[5] + a[3]) * -k2562;
  const i32x8 o0 = a[7] * k0298 + z1 + z3, o1 = a[5] * k2053 + z2 + z4;
  const i32x8 o2 = a[3] * k3072 + z2 + z3, o3 = a[1] * k1501 + z1 + z4;
  a[0] = (e0 + o3) >> shift;
  a[7] = (e0 - o3) >> shift;
  a[1] = (e1 + o2) >> shift;
  a[6] = (e1 - o2) >> shift;
  a[2] = (e2 + o1) >> shift;
  a[5] = (e2 - o1) >> shift;
  a[3] = (e3 + o0) >> shift;
  a[4] = (e3 - o0) >> shift;
}

// One pass along the columns. Outputs 0 and 4, which have no multiplications, are shifted left if `up`, else right.
template <int up, int shift>
IMGTOOL_INLINE void forward_pass(i32x8* a) {
  const i32x8 half = i32x8{} + (1 << (shift - 1));
  const i32x8 s0 = a[0] + a[7], s1 = a[1] + a[6], s2 = a[2] + a[5], s3 = a[3] + a[4];
  const i32x8 d0 = a[0] - a[7], d1 = a[1] - a[6], d2 = a[2] - a[5], d3 = a[3] - a[4];
  const i32x8 t0 = s0 + s3, t3 = s0 - s3, t1 = s1 + s2, t2 = s1 - s2;
  if (up) {
    a[0] = (t0 + t1) << kPassBits;
    a[4] = (t0 - t1) << kPassBits;
  } else {
    a[0] = (t0 + t1 + (1 << (kPassBits - 1))) >> kPassBits;
    a[4] = (t0 - t1 + (1 << (kPassBits - 1))) >> kPassBits;
  }
  i32x8 z1 = (t2 + t3) * k0541 + half;
  a[2] = (z1 + t3 * k0765) >> shift;
  a[6] = (z1 - t2 * k1847) >> shift;
  const i32x8 z5 = (d3 + d1 + d2 + d0) * k1175 + half;
  const i32x8 z3 = z5 - (d3 + d1) * k1961, z4 = z5 - (d2 + d0) * k0390;
  z1 = (d3 + d0) * -k0899;
  const i32x8 z2 = (d2 + d1) * -k2562;
  a[7] = (d3 * k0298 + z1 + z3) >> shift;
  a[5] = (d2 * k2053 + z2 + z4) >> shift;
  a[3] = (d1 * k3072 + z2 + z3) >> shift;
  a[1] = (d0 * k1501 + z1 + z4) >> shift;
}

// The range of the entropy coder's codes; valid images stay far below it.
constexpr int16_t kMaxCoefficient = 1023;

// Rounds to the nearest coefficient, by adding and subtracting a number so large that no bits are left for a fraction.
// |v| stays below 2^31, above which processors convert floats differently. This holds for damaged files, too: a DC
// coefficient has 16 bits, other coefficients have 10 and steps 16, and no output of `halve` exceeds the largest DC.
IMGTOOL_INLINE i16x8 to_coefficients(const f32x8& v) {
  constexpr float kMagic = 12582912.0f;            // 1.5 * 2^23
  const i16x8 low = i16x8{} - kMaxCoefficient, high = i16x8{} + kMaxCoefficient;
  i16x8 q = pack(__builtin_convertvector((v + kMagic) - kMagic, i32x8));
  q = q < low ? low : q;
  return q > high ? high : q;
}

// cos(i pi / 16), without a library function, whose last digit may differ between machines.
constexpr double cosine(int i) {
  constexpr double kOf[] = {1, 0.98078528040323044913, 0.92387953251128675613, 0.83146961230254523708,
                            0.70710678118654752440, 0.55557023301960222474, 0.38268343236508977173,
                            0.19509032201612826785, 0};
  i %= 32;
  if (i > 16) i = 32 - i;
  return i > 8 ? -kOf[16 - i] : kOf[i];
}

// The matrix of the orthonormal DCT, as in JPEG (T.81, A.3.3), times two adjacent inverse DCTs of half the length. A
// block of half the length has half the scale per dimension.
struct Halving {
  float m[kSide][kSide], transposed[kSide][kSide];
  constexpr Halving() : m(), transposed() {
    constexpr double kRoot8th = 0.35355339059327376220, kRoot2nd = 0.70710678118654752440;     // of 1/8, of 1/2
    for (int u = 0; u < 8; ++u)
      for (int v = 0; v < 8; ++v) {
        double sum = 0;
        for (int x = 0; x < 4; ++x) {
          const double c8 = (u ? 0.5 : kRoot8th) * cosine((2 * (v / 4 * 4 + x) + 1) * u);
          const double c4 = (v % 4 ? kRoot2nd : 0.5) * cosine(2 * (2 * x + 1) * (v % 4));
          sum += c8 * c4;
        }
        m[u][v] = transposed[v][u] = static_cast<float>(sum * kRoot2nd);
      }
  }
};
constexpr Halving kHalving;

IMGTOOL_INLINE void inverse_blocks(const int16_t* blocks, const uint8_t* last, int count, const Steps& steps,
                                   uint8_t* out, size_t pitch) {
  for (int i = 0; i < count; ++i, blocks += kArea, out += kSide) {
    if (last[i] == 0) {
      // With only a DC coefficient, islow's two passes give DC * step / 8, rounded.
      const int sample = ((blocks[0] * steps.step[0] + 4) >> 3) + 128;
      const auto byte = static_cast<uint8_t>(sample < 0 ? 0 : sample > 255 ? 255 : sample);
      const u8x8 row = u8x8{} + byte;
      for (int y = 0; y < kSide; ++y) store(out + pitch * y, row);
      continue;
    }
    i32x8 a[kSide];
    for (int y = 0; y < kSide; ++y) a[y] = widen(blocks + kSide * y) * load<i32x8>(steps.step + kSide * y);
    inverse_pass<kBits - kPassBits>(a);
    transpose(a);
    inverse_pass<kBits + kPassBits + 3>(a);
    transpose(a);
    for (int y = 0; y < kSide; y += 2) {
      const u8x16 rows = pack(pack(a[y] + 128), pack(a[y + 1] + 128));
      std::memcpy(out + pitch * y, &rows, kSide);
      std::memcpy(out + pitch * (y + 1), reinterpret_cast<const char*>(&rows) + kSide, kSide);
    }
  }
}

IMGTOOL_INLINE void forward_blocks(const uint8_t* samples, size_t pitch, int count, const Steps& steps,
                                   int16_t* blocks) {
  for (int i = 0; i < count; ++i, samples += kSide, blocks += kArea) {
    i32x8 a[kSide];
    for (int y = 0; y < kSide; ++y) a[y] = widen(samples + pitch * y) - 128;
    transpose(a);
    forward_pass<1, kBits - kPassBits>(a);
    transpose(a);
    forward_pass<0, kBits + kPassBits>(a);
    for (int y = 0; y < kSide; ++y) {
      // |a| / (8 step), rounded half up: in integers, that is (|a| + 4 step) / (8 step) rounded down. Adding a quarter
      // keeps exact results from falling below.
      const i32x8 sign = a[y] >> 31, size = (a[y] ^ sign) - sign;
      const f32x8 n = __builtin_convertvector(size + load<i32x8>(steps.step + kSide * y) * 4, f32x8) + 0.25f;
      const i32x8 q = __builtin_convertvector(n * load<f32x8>(steps.inverse + kSide * y), i32x8);
      store(blocks + kSide * y, pack((q ^ sign) - sign));
    }
  }
}

IMGTOOL_INLINE void requantise_blocks(const int16_t* from, const Steps& from_steps, const Steps& to_steps, int count,
                                      int16_t* to) {
  f32x8 factor[kSide];
  for (int y = 0; y < kSide; ++y)
    factor[y] = __builtin_convertvector(load<i32x8>(from_steps.step + kSide * y) * 8, f32x8) *
                load<f32x8>(to_steps.inverse + kSide * y);
  for (int i = 0; i < count; ++i, from += kArea, to += kArea)
    for (int y = 0; y < kSide; ++y) {
      const f32x8 v = __builtin_convertvector(widen(from + kSide * y), f32x8) * factor[y];
      store(to + kSide * y, to_coefficients(v));
    }
}

// Uses only the lowest n x n of the 4 x 4 frequencies of each block.
template <int n>
IMGTOOL_INLINE void halve_lowest(const int16_t* const above[2], const int16_t* const below[2], const Steps& from,
                                 const Steps& to, int16_t* out) {
  float in[kSide][kSide] = {}, half[kSide][kSide];
  for (int y = 0; y < n; ++y)
    for (int x = 0; x < n; ++x)
      for (int right = 0; right < 2; ++right) {
        const int at = kSide * y + x;
        in[y][x + 4 * right] = static_cast<float>(above[right][at] * from.step[at]);
        in[y + 4][x + 4 * right] = static_cast<float>(below[right][at] * from.step[at]);
      }
  f32x8 rows[2 * n], columns[2 * n];
  for (int i = 0; i < 2 * n; ++i) {
    const int at = i < n ? i : 4 + i - n;
    rows[i] = load<f32x8>(in[at]);
    columns[i] = load<f32x8>(kHalving.transposed[at]);
  }
  for (int u = 0; u < kSide; ++u) {
    f32x8 sum = {};
    for (int i = 0; i < 2 * n; ++i) sum += rows[i] * kHalving.m[u][i < n ? i : 4 + i - n];
    store(half[u], sum);
  }
  for (int u = 0; u < kSide; ++u) {
    f32x8 sum = {};
    for (int i = 0; i < 2 * n; ++i) sum += columns[i] * half[u][i < n ? i : 4 + i - n];
    store(out + kSide * u, to_coefficients(sum * 8.0f * load<f32x8>(to.inverse + kSide * u)));
  }
}

IMGTOOL_INLINE void halve_blocks(const int16_t* const above[2], const int16_t* const below[2], int last,
                                 const Steps& from, const Steps& to, int16_t* out) {
  if (last < 1)                        // zigzag indices below n (n + 1) / 2 are in the lowest n x n
    halve_lowest<1>(above, below, from, to, out);
  else if (last < 3)
    halve_lowest<2>(above, below, from, to, out);
  else if (last < 6)
    halve_lowest<3>(above, below, from, to, out);
  else
    halve_lowest<4>(above, below, from, to, out);
}

}  // namespace

void Steps::set(const uint16_t* steps) {
  for (int i = 0; i < kArea; ++i) {
    step[i] = steps[i];
    inverse[i] = 1.0f / static_cast<float>(8 * step[i]);
  }
}

void inverse_dct(const int16_t* blocks, const uint8_t* last, int count, const Steps& steps, uint8_t* out,
                 size_t pitch) {
  Kernel<inverse_blocks>::run(blocks, last, count, steps, out, pitch);
}

void forward_dct(const uint8_t* samples, size_t pitch, int count, const Steps& steps, int16_t* blocks) {
  Kernel<forward_blocks>::run(samples, pitch, count, steps, blocks);
}

void requantise(const int16_t* from, const Steps& from_steps, const Steps& to_steps, int count, int16_t* to) {
  Kernel<requantise_blocks>::run(from, from_steps, to_steps, count, to);
}

void halve(const int16_t* const above[2], const int16_t* const below[2], int last, const Steps& from, const Steps& to,
           int16_t* out) {
  Kernel<halve_blocks>::run(above, below, last, from, to, out);
}

}  // namespace imgtool
