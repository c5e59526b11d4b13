// An image as JPEG stores it: luma and chroma planes, which are resized and subsampled separately, without RGB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace imgtool {

// The samples of one component, or a part of them that begins at column `left` and row `top`. Rows are padded so that
// whole MCUs can be read and written.
struct Plane {
  std::vector<uint8_t> data;
  int width = 0, height = 0, left = 0, top = 0;
  size_t stride = 0;

  void resize(int w, int h);
  uint8_t* row(int y) { return data.data() + stride * static_cast<size_t>(y); }
  const uint8_t* row(int y) const { return data.data() + stride * static_cast<size_t>(y); }
};

// `count` is 3 (Y, Cb, Cr, or with `rgb` R, G, B) or 1 (grayscale). `span_x[k]` and `span_y[k]` are the width and
// height in luma pixels of a sample of plane k.
struct Planes {
  Plane plane[3];
  double span_x[3] = {1, 1, 1}, span_y[3] = {1, 1, 1};
  int count = 0, width = 0, height = 0;
  bool rgb = false;
};

// The subsampling of the chroma planes relative to luma.
struct Subsampling {
  int x = 2, y = 2;              // 4:2:0; 2, 1 is 4:2:2, and 1, 1 is 4:4:4
};

// How an image is encoded.
struct Coding {
  int quality = 90;              // libjpeg's, 1 to 100
  Subsampling subsampling;
  int restart = 0;               // MCUs between restart markers, where a decoder can start; 0: no markers
};

// Shrinks the planes to an image of width x height with this subsampling, antialiased (a triangle filter scaled with
// the reduction, in Pillow's arithmetic). A chroma sample is in the middle of the pixels that it covers, as in JFIF. A
// grayscale image gets neutral chroma.
void resample(const Planes& in, Planes& out, int width, int height, Subsampling subsampling);

// See image.hpp.
struct Crop;

// Resizes a crop to out_w x out_h RGB pixels, antialiased in the same way. The planes must contain the crop.
void resize_crop(const Planes& in, const Crop& crop, uint8_t* rgb, int out_w, int out_h);

// Splits the crop's rectangle of RGB pixels, which have `width` pixels per row, into planes.
void split(const uint8_t* rgb, int width, const Crop& crop, Planes& planes);

// Repeats the last column and row in the padding up to whole MCUs, because the encoder reads these.
void pad_edges(Plane& plane);

}  // namespace imgtool
