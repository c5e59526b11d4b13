// An image as JPEG holds it: luma and chroma planes, resized and subsampled apart, without a detour through RGB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace imgtool {

// One component's samples, or a part of them that begins at column `left` and row `top`. The rows are padded so that whole
// MCUs can be read into and written from it.
struct Plane {
  std::vector<uint8_t> data;
  int width = 0, height = 0, left = 0, top = 0;
  size_t stride = 0;

  void resize(int w, int h);
  uint8_t* row(int y) { return data.data() + stride * static_cast<size_t>(y); }
  const uint8_t* row(int y) const { return data.data() + stride * static_cast<size_t>(y); }
};

// `count` is 3 (Y, Cb, Cr, or with `rgb` R, G, B) or 1 (grayscale). `span_x[k]`, `span_y[k]`: luma pixels that a sample of plane k stands for.
struct Planes {
  Plane plane[3];
  double span_x[3] = {1, 1, 1}, span_y[3] = {1, 1, 1};
  int count = 0, width = 0, height = 0;
  bool rgb = false;
};

// How the chroma planes are subsampled against luma.
struct Subsampling {
  int x = 2, y = 2;              // 4:2:0; 2, 1 is 4:2:2, and 1, 1 is 4:4:4
};

// How an image is coded.
struct Coding {
  int quality = 90;              // libjpeg's, 1 to 100
  Subsampling subsampling;
  int restart = 0;               // MCUs between restart markers, where a decoder can enter; 0: there are none
};

// Shrinks the planes to an image of width x height with this subsampling, antialiased (a triangle filter as wide as
// the shrink, in Pillow's arithmetic). Chroma samples lie in the middle of the pixels they stand for, as JFIF has it.
// A grayscale image gets neutral chroma.
void resample(const Planes& in, Planes& out, int width, int height, Subsampling subsampling);

// A crop's rectangle of an image, and what it becomes; see Crop in image.hpp.
struct Crop;

// Resizes a crop out of the planes that it needs to out_w x out_h RGB pixels, antialiased in the same way.
void resize_crop(const Planes& in, const Crop& crop, uint8_t* rgb, int out_w, int out_h);

// The planes of a crop's rectangle of RGB pixels, `width` in a row.
void split(const uint8_t* rgb, int width, const Crop& crop, Planes& planes);

// Repeats the last column and row into the padding up to whole MCUs, which an encoder reads.
void pad_edges(Plane& plane);

}  // namespace imgtool
