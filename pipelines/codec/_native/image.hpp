// Two jobs of the codec: a crop for a batch, and a whole image.
#pragma once

#include <cstdint>
#include <vector>

#include "jpeg.hpp"
#include "resize.hpp"

namespace imgtool {

// Source rectangle (x, y, w, h) resized to (resized_w, resized_h), of which the output is the window at
// (window_x, window_y); mirrored last. A training crop has resized = output and window = 0, 0.
struct Crop {
  int x, y, w, h;
  int resized_w, resized_h;
  int window_x, window_y;
  bool flip;
};

// What one thread keeps from image to image.
struct Worker {
  Decoder decoder;
  Resizer resizer;
  Planes planes;
};

// Decodes and resizes one crop of a JPEG into out_w x out_h RGB pixels. `width` and `height` are what the shard says
// of the image; another size is an ImageError, as is damaged data inside the crop.
void decode_crop(Worker& worker, const uint8_t* data, size_t size, int width, int height, const Crop& crop,
                 uint8_t* rgb, int out_w, int out_h);

// The same on an image that is stored as its pixels (RGB, 3 bytes a pixel).
void crop_raw(Worker& worker, const uint8_t* data, size_t size, int width, int height, const Crop& crop, uint8_t* rgb,
              int out_w, int out_h);

// The same on pixels already in memory.
void resize_crop(Worker& worker, const uint8_t* rgb, int width, int height, const Crop& crop, uint8_t* out, int out_w,
                 int out_h);

struct Image {
  std::vector<uint8_t> rgb;
  int width = 0, height = 0;
  bool damaged = false;          // some of it is libjpeg's guess
};

struct Target {                  // 0: no limit
  int max_side = 0, short_side = 0;
};

// The size an image is stored at: never enlarged, aspect kept, each side rounded and at least 1.
void target_size(const Target& target, int width, int height, int* out_w, int* out_h);

// Throws ImageError if the data ended before the image did.
void check_whole(const Decoder& decoder, const Header& header);

// Decodes a whole JPEG, shrunk to the target; turned upright when `upright` and its EXIF orientation says so.
// Throws ImageError, also when the data ends before the image does.
Image decode_image(Worker& worker, const uint8_t* data, size_t size, const Target& target, bool upright);

}  // namespace imgtool
