#include "image.hpp"

#include <algorithm>
#include <cmath>

namespace imgtool {
namespace {

// Tells whether `length` > 0 samples from `begin` on are inside [0, size). No sum can overflow.
bool is_inside(int begin, int length, int size) {
  return begin >= 0 && length > 0 && length <= size && begin <= size - length;
}

void check(const Crop& c, int width, int height, int out_w, int out_h) {
  if (!is_inside(c.x, c.w, width) || !is_inside(c.y, c.h, height) || !is_inside(c.window_x, out_w, c.resized_w) ||
      !is_inside(c.window_y, out_h, c.resized_h))
    throw ImageError("the crop is not inside the image");
}

void make_axes(Resizer& resizer, const Crop& c, int out_w, int out_h) {
  make_axis(resizer.cols, 0, static_cast<double>(c.w) / c.resized_w, c.x, c.w, c.window_x, out_w, c.flip);
  make_axis(resizer.rows, 0, static_cast<double>(c.h) / c.resized_h, c.y, c.h, c.window_y, out_h, false);
  resizer.begin();
}

// Applies EXIF orientation 2..8 (EXIF 2.3, 4.6.4 A): mirrored, rotated, or both.
Image oriented(const Image& in, int orientation) {
  const bool turned = orientation >= 5;
  Image out;
  out.width = turned ? in.height : in.width;
  out.height = turned ? in.width : in.height;
  out.damaged = in.damaged;
  out.rgb.resize(in.rgb.size());
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      int sx = turned ? y : x, sy = turned ? x : y;
      if (flip_x) sx = in.width - 1 - sx;
      if (flip_y) sy = in.height - 1 - sy;
      const uint8_t* from = &in.rgb[3 * (static_cast<size_t>(sy) * in.width + sx)];
      std::copy(from, from + 3, &out.rgb[3 * (static_cast<size_t>(y) * out.width + x)]);
    }
  }
  return out;
}

}  // namespace

void decode_crop(Worker& worker, const uint8_t* data, size_t size, int width, int height, const Crop& crop,
                 uint8_t* rgb, int out_w, int out_h) {
  check(crop, width, height, out_w, out_h);
  Decoder& decoder = worker.decoder;
  Resizer& resizer = worker.resizer;
  const Header& header = decoder.open(data, size);
  if (header.width != width || header.height != height)
    throw ImageError("the JPEG is " + std::to_string(header.width) + " x " + std::to_string(header.height) +
                     ", but according to the shard " + std::to_string(width) + " x " + std::to_string(height));
  if (decoder.read_region(crop.x, crop.y, crop.w, crop.h, worker.planes)) {
    decoder.end();
    resize_crop(worker.planes, crop, rgb, out_w, out_h);
    return;
  }
  make_axes(resizer, crop, out_w, out_h);
  const int x = resizer.cols.lo, y = resizer.rows.lo, rows = resizer.rows.hi - y;
  decoder.begin(x, y, resizer.cols.hi - x);
  for (int r = 0; r < rows; ++r) resizer.push(decoder.row());
  const bool bad = decoder.state().truncated || decoder.state().damaged || decoder.misses_scans();
  decoder.end();
  if (bad) throw ImageError("the JPEG data is damaged");
  resizer.finish(rgb, 3 * static_cast<size_t>(out_w));
}

void crop_raw(Worker& worker, const uint8_t* data, size_t size, int width, int height, const Crop& crop, uint8_t* rgb,
              int out_w, int out_h) {
  if (size != 3 * static_cast<size_t>(width) * static_cast<size_t>(height))
    throw ImageError(std::to_string(size) + " bytes are not " + std::to_string(width) + " x " + std::to_string(height) +
                     " pixels");
  check(crop, width, height, out_w, out_h);
  split(data, width, crop, worker.planes);
  resize_crop(worker.planes, crop, rgb, out_w, out_h);
}

void resize_crop(Worker& worker, const uint8_t* rgb, int width, int height, const Crop& crop, uint8_t* out, int out_w,
                 int out_h) {
  check(crop, width, height, out_w, out_h);
  Resizer& resizer = worker.resizer;
  make_axes(resizer, crop, out_w, out_h);
  const int x = resizer.cols.lo, n = resizer.cols.hi - x;
  std::vector<uint8_t> line(4 * static_cast<size_t>(n));
  for (int y = resizer.rows.lo; y < resizer.rows.hi; ++y) {
    const uint8_t* from = rgb + 3 * (static_cast<size_t>(y) * width + x);
    for (int i = 0; i < n; ++i) std::copy(from + 3 * i, from + 3 * i + 3, &line[4 * static_cast<size_t>(i)]);
    resizer.push(line.data());
  }
  resizer.finish(out, 3 * static_cast<size_t>(out_w));
}

void target_size(const Target& target, int width, int height, int* out_w, int* out_h) {
  double scale = 1.0;
  if (target.max_side > 0) scale = std::min(scale, static_cast<double>(target.max_side) / std::max(width, height));
  if (target.short_side > 0) scale = std::min(scale, static_cast<double>(target.short_side) / std::min(width, height));
  *out_w = std::max(1, static_cast<int>(std::lround(width * scale)));
  *out_h = std::max(1, static_cast<int>(std::lround(height * scale)));
}

void check_whole(const Decoder& decoder, const Header& header) {
  if (decoder.state().truncated)
    throw ImageError("truncated: the data ends at row " + std::to_string(decoder.state().first_bad_row) + " of " +
                     std::to_string(header.height));
  if (decoder.misses_scans()) throw ImageError("truncated: the data ends before the last scan");
}

Image decode_image(Worker& worker, const uint8_t* data, size_t size, const Target& target, bool upright) {
  Decoder& decoder = worker.decoder;
  Resizer& resizer = worker.resizer;
  const Header header = decoder.open(data, size);
  Image out;
  target_size(target, header.width, header.height, &out.width, &out.height);
  const bool same_size = out.width == header.width && out.height == header.height;
  const size_t stride = 3 * static_cast<size_t>(out.width);
  out.rgb.resize(stride * static_cast<size_t>(out.height));
  if (!same_size)
    make_axes(resizer, {0, 0, header.width, header.height, out.width, out.height, 0, 0, false}, out.width, out.height);
  decoder.begin(0, 0, header.width);
  for (int r = 0; r < header.height; ++r) {
    const uint8_t* row = decoder.row();
    if (same_size)
      for (int x = 0; x < out.width; ++x) std::copy(row + 4 * x, row + 4 * x + 3, &out.rgb[stride * r + 3 * x]);
    else
      resizer.push(row);
  }
  check_whole(decoder, header);
  out.damaged = decoder.state().damaged;
  decoder.end();
  if (!same_size) resizer.finish(out.rgb.data(), stride);
  return upright && header.orientation > 1 ? oriented(out, header.orientation) : out;
}

}  // namespace imgtool
