#include "planes.hpp"

#include <algorithm>
#include <cstring>

#include "resize.hpp"

namespace imgtool {
namespace {

constexpr int kMcu = 32;         // the largest MCU is 4 blocks of 8 a side
constexpr int kTile = 16;        // bytes a side of a transposed tile

using u8x16 = uint8_t __attribute__((vector_size(16)));

// Four rounds of interleaving rows i and i + 8 transpose a 16 x 16 tile.
void transpose_tile(const uint8_t* from, size_t from_stride, uint8_t* to, size_t to_stride) {
  u8x16 a[kTile], b[kTile];
  for (int i = 0; i < kTile; ++i) std::memcpy(&a[i], from + from_stride * i, kTile);
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < kTile / 2; ++i) {
      b[2 * i] = __builtin_shuffle(a[i], a[i + 8], u8x16{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
      b[2 * i + 1] =
          __builtin_shuffle(a[i], a[i + 8], u8x16{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
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

// Chroma of twice the resolution of a picture that keeps its size: the mean of 2 x 2, rounded up and down in turn as libjpeg's own encoder does it.
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

// Columns only: `scale` rows of `in` make one of `out`.
void resample_rows(const Plane& in, Plane& out, double scale) {
  static thread_local Axis axis;
  make_axis(axis, scale, in.height, out.height);
  for (int y = 0; y < out.height; ++y)
    resample_column(in.row(axis.lo + axis.first[y]), in.stride, static_cast<size_t>(in.width),
                    &axis.weights[static_cast<size_t>(y) * axis.taps], axis.count[y], out.row(y));
}

void resample(const Plane& in, Plane& out, double scale_x, double scale_y) {
  static thread_local Plane shrunk, turned, narrow;
  if (scale_x == 1 && scale_y == 1) return copy(in, out);
  const Plane* at = &in;
  if (scale_y != 1 || in.height != out.height) {
    shrunk.resize(in.width, out.height);
    resample_rows(in, shrunk, scale_y);
    at = &shrunk;
  }
  // One kernel does both directions: it works along rows, so the plane is turned for the other and back.
  if (scale_x == 1 && at->width == out.width) return copy(*at, out);
  transpose(*at, turned);
  narrow.resize(turned.width, out.width);
  resample_rows(turned, narrow, scale_x);
  transpose(narrow, out);
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
