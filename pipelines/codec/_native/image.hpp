// The two decoding jobs of the codec: a crop for a batch, and a whole image.
#pragma once

#include <cstdint>
#include <vector>

#include "jpeg.hpp"
#include "resize.hpp"

namespace imgtool {

// The source rectangle (x, y, w, h) is resized to (resized_w, resized_h). The output is the window of it at
// (window_x, window_y), mirrored if `flip`. A training crop has resized = output and window = 0, 0.
struct Crop {
  int x, y, w, h;
  int resized_w, resized_h;
  int window_x, window_y;
  bool flip;
};

// The state that a thread reuses for each image.
struct Worker {
  Decoder decoder;
  Resizer resizer;
  Planes planes;
};

// Decodes and resizes one crop of a JPEG into out_w x out_h RGB pixels. `width` and `height` are the size according to
// the shard. Throws ImageError if the JPEG has another size, or if its data is damaged inside the crop.
void decode_crop(Worker& worker, const uint8_t* data, size_t size, int width, int height, const Crop& crop,
                 uint8_t* rgb, int out_w, int out_h);

// The same for an image that is stored as pixels (RGB, 3 bytes per pixel).
void crop_raw(Worker& worker, const uint8_t* data, size_t size, int width, int height, const Crop& crop, uint8_t* rgb,
              int out_w, int out_h);

// The same for decoded pixels.
void resize_crop(Worker& worker, const uint8_t* rgb, int width, int height, const Crop& crop, uint8_t* out, int out_w,
                 int out_h);

struct Image {
  std::vector<uint8_t> rgb;
  int width = 0, height = 0;
  bool damaged = false;          // libjpeg filled in some pixels
};

struct Target {                  // 0: no limit
  int max_side = 0, short_side = 0;
};

// The size in which an image is stored: never enlarged, with the same aspect ratio, sides rounded and at least 1.
void target_size(const Target& target, int width, int height, int* out_w, int* out_h);

// Throws ImageError if the data ended before the image did. Call this after the last row and before end().
void check_whole(const Decoder& decoder, const Header& header);

// Decodes a whole JPEG and shrinks it to the target. Applies the EXIF orientation if `upright`.
// Throws ImageError, also if the data ends before the image does.
Image decode_image(Worker& worker, const uint8_t* data, size_t size, const Target& target, bool upright);

}  // namespace imgtool
