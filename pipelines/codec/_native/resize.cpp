#include "resize.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "simd.hpp"

namespace imgtool {
namespace {

constexpr int kBits = 22;        // Pillow's PRECISION_BITS: 32 - 8 - 2
constexpr int32_t kHalf = 1 << (kBits - 1);
constexpr size_t kBlock = 64;    // columns of a vertical pass that are kept in registers

using i32x4 = int32_t __attribute__((vector_size(16)));
using u8x4 = uint8_t __attribute__((vector_size(4)));

// The weights are not negative and sum to one within rounding. So all sums stay in 0..255 and need no clipping.
IMGTOOL_INLINE void resample_row(const Axis& axis, const uint8_t* rgbx, uint8_t* rgb) {
  const int n = axis.size(), taps = axis.taps;
  const int32_t* weights = axis.weights.data();
  for (int i = 0; i < n; ++i, weights += taps, rgb += 3) {
    i32x4 sum = {kHalf, kHalf, kHalf, kHalf};
    const uint8_t* p = rgbx + 4 * static_cast<size_t>(axis.first[i]);
    const int count = axis.count[i];
    for (int t = 0; t < count; ++t, p += 4) {
      u8x4 pixel;
      std::memcpy(&pixel, p, 4);
      sum += __builtin_convertvector(pixel, i32x4) * weights[t];
    }
    sum >>= kBits;
    const u8x4 out = __builtin_convertvector(sum, u8x4);
    std::memcpy(rgb, &out, 4);   // the fourth byte is the next pixel's first, or padding
  }
}

// Makes a row of `n` samples as the weighted sum of `count` lines that are `pitch` bytes apart. Writes whole blocks of
// 64, that is up to 63 more samples.
IMGTOOL_INLINE void resample_column(const uint8_t* lines, size_t pitch, size_t n, const int32_t* weights, int count, uint8_t* out) {
  for (size_t x = 0; x < n; x += kBlock) {
    int32_t sum[kBlock];
    for (size_t i = 0; i < kBlock; ++i) sum[i] = kHalf;
    for (int t = 0; t < count; ++t) {
      const uint8_t* line = lines + pitch * static_cast<size_t>(t) + x;
      const int32_t weight = weights[t];
      for (size_t i = 0; i < kBlock; ++i) sum[i] += weight * line[i];
    }
    for (size_t i = 0; i < kBlock; ++i) out[x + i] = static_cast<uint8_t>(sum[i] >> kBits);
  }
}

}  // namespace

void make_axis(Axis& axis, double start, double scale, int in0, int in_length, int window, int window_size, bool flip) {
  const double support = std::max(scale, 1.0);   // the triangle filter extends one (scaled) pixel to each side
  axis.taps = static_cast<int>(std::ceil(support)) * 2 + 1;
  axis.first.resize(window_size);
  axis.count.resize(window_size);
  axis.weights.assign(static_cast<size_t>(window_size) * axis.taps, 0);
  int lo = in_length, hi = 0;
  std::vector<double> w(axis.taps);
  for (int i = 0; i < window_size; ++i) {
    const double center = start + (window + i + 0.5) * scale;
    const int begin = std::max(static_cast<int>(center - support + 0.5), 0);
    const int end = std::min(static_cast<int>(center + support + 0.5), in_length);
    double sum = 0;
    for (int x = begin; x < end; ++x) {
      const double d = std::abs((x - center + 0.5) * (1.0 / support));
      w[x - begin] = d < 1.0 ? 1.0 - d : 0.0;
      sum += w[x - begin];
    }
    const int at = flip ? window_size - 1 - i : i;
    int32_t* out = &axis.weights[static_cast<size_t>(at) * axis.taps];
    for (int x = begin; x < end; ++x)
      out[x - begin] = static_cast<int32_t>(0.5 + (sum != 0 ? w[x - begin] / sum : 0.0) * (1 << kBits));
    axis.first[at] = begin;
    axis.count[at] = end - begin;
    lo = std::min(lo, begin);
    hi = std::max(hi, end);
  }
  for (int& first : axis.first) first -= lo;
  axis.lo = in0 + lo;
  axis.hi = in0 + hi;
}

void Resizer::begin() {
  pitch_ = (3 * static_cast<size_t>(cols.size()) + 1 + kBlock - 1) / kBlock * kBlock;
  lines_.resize(pitch_ * static_cast<size_t>(rows.hi - rows.lo));
  out_line_.resize(pitch_);
  pushed_ = 0;
}

void Resizer::push(const uint8_t* rgbx) {
  Kernel<resample_row>::run(cols, rgbx, &lines_[pitch_ * pushed_++]);
}

void Resizer::finish(uint8_t* rgb, size_t stride) {
  for (int y = 0; y < rows.size(); ++y) {
    Kernel<resample_column>::run(&lines_[pitch_ * rows.first[y]], pitch_, pitch_,
                                 &rows.weights[static_cast<size_t>(y) * rows.taps], rows.count[y], out_line_.data());
    std::memcpy(rgb + stride * y, out_line_.data(), 3 * static_cast<size_t>(cols.size()));
  }
}

}  // namespace imgtool
