#include "planes.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "image.hpp"
#include "resize.hpp"
#include "simd.hpp"

namespace imgtool {
namespace {

constexpr int kMcu = 32;         // the largest MCU has 4 blocks of 8 per side
constexpr int kTile = 16;        // side of a transposed tile in bytes

// Transposes a 16 x 16 tile by four rounds of interleaving rows i and i + 8.
void transpose_tile(const uint8_t* from, size_t from_stride, uint8_t* to, size_t to_stride) {
  u8x16 a[kTile], b[kTile];
  for (int i = 0; i < kTile; ++i) std::memcpy(&a[i], from + from_stride * i, kTile);
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < kTile / 2; ++i) {
      b[2 * i] = shuffle<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a[i], a[i + 8]);
      b[2 * i + 1] =
          shuffle<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a[i], a[i + 8]);
    }
    std::memcpy(a, b, sizeof a);
  }
  for (int i = 0; i < kTile; ++i) std::memcpy(to + to_stride * i, &a[i], kTile);
}

void transpose(const Plane& in, Plane& out) {
  out.resize(in.height, in.width);
  for (int y = 0; y < in.height; y += kTile)
    for (int x = 0; x < in.width; x += kTile) transpose_tile(in.row(y) + x, in.stride, out.row(x) + y, out.stride);
}

// Halves a chroma plane: the mean of 2 x 2 samples, rounded up and down alternately, as in libjpeg's encoder.
void halve(const Plane& in, Plane& out) {
  for (int y = 0; y < out.height; ++y) {
    const uint8_t* above = in.row(2 * y);
    const uint8_t* below = in.row(std::min(2 * y + 1, in.height - 1));
    uint8_t* to = out.row(y);
    const int whole = in.width / 2;
    for (int x = 0; x < whole; ++x)
      to[x] = static_cast<uint8_t>((above[2 * x] + above[2 * x + 1] + below[2 * x] + below[2 * x + 1] + 1 + (x & 1)) >> 2);
    if (whole < out.width) to[whole] = static_cast<uint8_t>((above[2 * whole] + below[2 * whole] + 1) >> 1);
  }
}

void copy(const Plane& in, Plane& out) {
  for (int y = 0; y < out.height; ++y) std::memcpy(out.row(y), in.row(y), static_cast<size_t>(out.width));
}

// Makes a row of `n` samples as the weighted sum of `count` rows that are `stride` bytes apart. Weights are in units of
// 2^-16. Writes whole blocks of 64, that is up to 63 more samples. Computes in 16 bits per sample, of which 8 are the
// value. The mean of what each product loses by truncation is added at the start.
IMGTOOL_INLINE void weigh_rows(const uint8_t* rows, size_t stride, size_t n, const uint16_t* weights, int count, uint8_t* out) {
  constexpr size_t kBlock = 64;
  const auto half = static_cast<uint16_t>(128 + std::min(count / 2, 100));
  for (size_t x = 0; x < n; x += kBlock) {
    uint16_t sum[kBlock];
    for (size_t i = 0; i < kBlock; ++i) sum[i] = half;
    for (int t = 0; t < count; ++t) {
      const uint8_t* row = rows + stride * static_cast<size_t>(t) + x;
      const uint16_t weight = weights[t];
      for (size_t i = 0; i < kBlock; ++i) {
        const auto value = static_cast<uint16_t>(row[i] << 8);
        sum[i] = static_cast<uint16_t>(sum[i] + (static_cast<uint32_t>(value) * weight >> 16));
      }
    }
    for (size_t i = 0; i < kBlock; ++i) out[x + i] = static_cast<uint8_t>(sum[i] >> 8);
  }
}

// Resamples `in` vertically to out.height rows. The axis is relative to the rows of the whole plane.
void resample_rows(const Plane& in, const Axis& axis, Plane& out) {
  constexpr int32_t kOne = (1 << 16) - 1;
  std::vector<uint16_t> weights(static_cast<size_t>(axis.taps));
  for (int y = 0; y < out.height; ++y) {
    const int32_t* exact = &axis.weights[static_cast<size_t>(y) * axis.taps];
    int32_t sum = 0;
    int largest = 0;
    for (int t = 0; t < axis.count[y]; ++t) {
      weights[t] = static_cast<uint16_t>(std::min((exact[t] + (1 << 5)) >> 6, kOne));
      sum += weights[t];
      if (weights[t] > weights[largest]) largest = t;
    }
    weights[largest] = static_cast<uint16_t>(std::min(weights[largest] + kOne + 1 - sum, kOne));   // sum: one
    Kernel<weigh_rows>::run(in.row(axis.lo + axis.first[y] - in.top), in.stride, static_cast<size_t>(in.width),
                            weights.data(), axis.count[y], out.row(y));
  }
}

// Uses the vertical kernel in both directions by transposing the plane in between. `out` is transposed.
void resample_turned(const Plane& in, const Axis& columns, const Axis& rows, Plane& out) {
  static thread_local Plane shrunk, turned;
  shrunk.resize(in.width, rows.size());
  resample_rows(in, rows, shrunk);
  transpose(shrunk, turned);
  turned.top = in.left;
  out.resize(rows.size(), columns.size());
  resample_rows(turned, columns, out);
}

// v * c for |v| <= 128 and c < 1, with six fractional bits.
IMGTOOL_INLINE i16x8 times(const i16x8& v, double c) {
  return multiply_high(v << 7, static_cast<int16_t>(c * 32768 + 0.5));
}

constexpr int kPixels = 16;      // in a vector of bytes

// Interleaves 16 pixels and writes the first `count` of them.
IMGTOOL_INLINE void join(const u8x16& r, const u8x16& g, const u8x16& b, uint8_t* rgb, int count) {
  u8x16 out[3];
  out[0] = shuffle<0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5>(r, g);
  out[0] = shuffle<0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15>(out[0], b);
  out[1] = shuffle<21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26>(r, g);
  out[1] = shuffle<0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15>(out[1], b);
  out[2] = shuffle<0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0>(r, g);
  out[2] = shuffle<26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31>(out[2], b);
  std::memcpy(rgb, out, count >= kPixels ? sizeof out : 3 * static_cast<size_t>(count));
}

IMGTOOL_INLINE void join_row(const uint8_t* r, const uint8_t* g, const uint8_t* b, int width, uint8_t* rgb) {
  for (int x = 0; x < width; x += kPixels) {
    u8x16 v[3];
    std::memcpy(&v[0], r + x, kPixels);
    std::memcpy(&v[1], g + x, kPixels);
    std::memcpy(&v[2], b + x, kPixels);
    join(v[0], v[1], v[2], rgb + 3 * x, width - x);
  }
}

IMGTOOL_INLINE void split_row(const uint8_t* rgb, int width, uint8_t* r, uint8_t* g, uint8_t* b) {
  for (int x = 0; x < width; x += kPixels) {
    u8x16 in[3] = {};
    std::memcpy(in, rgb + 3 * x, width - x >= kPixels ? sizeof in : 3 * static_cast<size_t>(width - x));
    const u8x16 vr = shuffle<0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0>(in[0], in[1]);
    const u8x16 vg = shuffle<1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0>(in[0], in[1]);
    const u8x16 vb = shuffle<2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0>(in[0], in[1]);
    const u8x16 out[3] = {
        shuffle<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29>(vr, in[2]),
        shuffle<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30>(vg, in[2]),
        shuffle<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31>(vb, in[2])};
    std::memcpy(r + x, &out[0], kPixels);
    std::memcpy(g + x, &out[1], kPixels);
    std::memcpy(b + x, &out[2], kPixels);
  }
}

// Converts a row of pixels to RGB as defined by JFIF, in 16-bit arithmetic. Reads whole blocks of 16.
IMGTOOL_INLINE void write_rgb(const uint8_t* luma, const uint8_t* blue, const uint8_t* red, int width, uint8_t* rgb) {
  for (int x = 0; x < width; x += kPixels) {
    i16x8 r[2], g[2], b[2];
    for (int i = 0; i < 2; ++i) {
      const i16x8 y = (widen_to_16(luma + x + 8 * i) << 6) + 32;
      const i16x8 cb = widen_to_16(blue + x + 8 * i) - 128, cr = widen_to_16(red + x + 8 * i) - 128;
      r[i] = (y + (cr << 6) + times(cr, 0.402)) >> 6;
      g[i] = (y - times(cb, 0.344136) - times(cr, 0.714136)) >> 6;
      b[i] = (y + (cb << 6) + times(cb, 0.772)) >> 6;
    }
    join(pack(r[0], r[1]), pack(g[0], g[1]), pack(b[0], b[1]), rgb + 3 * x, width - x);
  }
}

void resample(const Plane& in, Plane& out, double scale_x, double scale_y) {
  static thread_local Plane turned;
  static thread_local Axis columns, rows;
  if (scale_x == 1 && scale_y == 1) return copy(in, out);
  make_axis(columns, 0, scale_x, 0, in.width, 0, out.width, false);
  make_axis(rows, 0, scale_y, 0, in.height, 0, out.height, false);
  resample_turned(in, columns, rows, turned);
  transpose(turned, out);
}

}  // namespace

void Plane::resize(int w, int h) {
  width = w;
  height = h;
  stride = static_cast<size_t>((w + kMcu - 1) / kMcu * kMcu + kMcu);
  data.resize(stride * static_cast<size_t>((h + kMcu - 1) / kMcu * kMcu + kMcu));
}

void resample(const Planes& in, Planes& out, int width, int height, Subsampling subsampling) {
  out.count = 3;
  out.width = width;
  out.height = height;
  for (int k = 0; k < 3; ++k) {
    const int sx = k ? subsampling.x : 1, sy = k ? subsampling.y : 1;
    Plane& to = out.plane[k];
    to.resize((width + sx - 1) / sx, (height + sy - 1) / sy);
    out.span_x[k] = sx;
    out.span_y[k] = sy;
    const bool same_size = width == in.width && height == in.height;
    if (k >= in.count)
      std::fill(to.data.begin(), to.data.end(), uint8_t{128});
    else if (same_size && sx == 2 * in.span_x[k] && sy == 2 * in.span_y[k])
      halve(in.plane[k], to);
    else
      resample(in.plane[k], to, static_cast<double>(in.width) / width * sx / in.span_x[k],
               static_cast<double>(in.height) / height * sy / in.span_y[k]);
  }
}

void resize_crop(const Planes& in, const Crop& crop, uint8_t* rgb, int out_w, int out_h) {
  static thread_local Plane turned, made[3];
  static thread_local Axis columns, rows;
  for (int k = 0; k < in.count; ++k) {
    // All samples that overlap the crop; the first one may begin before it.
    auto make = [](Axis& axis, double span, int in0, int length, int resized, int window, int size, bool flip) {
      const int first = static_cast<int>(in0 / span), end = static_cast<int>(std::ceil((in0 + length) / span));
      make_axis(axis, in0 / span - first, length / span / resized, first, end - first, window, size, flip);
    };
    make(columns, in.span_x[k], crop.x, crop.w, crop.resized_w, crop.window_x, out_w, crop.flip);
    make(rows, in.span_y[k], crop.y, crop.h, crop.resized_h, crop.window_y, out_h, false);
    resample_turned(in.plane[k], columns, rows, turned);
    transpose(turned, made[k]);
  }
  for (int k = in.count; k < 3; ++k) {
    made[k].resize(out_w, out_h);
    std::fill(made[k].data.begin(), made[k].data.end(), uint8_t{128});
  }
  const auto to_rgb = in.rgb ? Kernel<join_row>::run : Kernel<write_rgb>::run;
  for (int y = 0; y < out_h; ++y)
    to_rgb(made[0].row(y), made[1].row(y), made[2].row(y), out_w, rgb + 3 * static_cast<size_t>(out_w) * y);
}

void split(const uint8_t* rgb, int width, const Crop& crop, Planes& planes) {
  planes.count = 3;
  planes.rgb = true;
  for (int k = 0; k < 3; ++k) {
    planes.plane[k].resize(crop.w, crop.h);
    planes.plane[k].left = crop.x;
    planes.plane[k].top = crop.y;
    planes.span_x[k] = planes.span_y[k] = 1;
  }
  for (int y = 0; y < crop.h; ++y)
    Kernel<split_row>::run(rgb + 3 * (static_cast<size_t>(crop.y + y) * width + crop.x), crop.w,
                           planes.plane[0].row(y), planes.plane[1].row(y), planes.plane[2].row(y));
}

void pad_edges(Plane& plane) {
  const int right = (plane.width + kMcu - 1) / kMcu * kMcu, bottom = (plane.height + kMcu - 1) / kMcu * kMcu;
  for (int y = 0; y < plane.height; ++y) {
    uint8_t* row = plane.row(y);
    std::memset(row + plane.width, row[plane.width - 1], static_cast<size_t>(right - plane.width));
  }
  for (int y = plane.height; y < bottom; ++y)
    std::memcpy(plane.row(y), plane.row(plane.height - 1), static_cast<size_t>(right));
}

}  // namespace imgtool
