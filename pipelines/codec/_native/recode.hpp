// An image as a shard stores it.
#pragma once

#include <cstdint>
#include <string>

#include "image.hpp"

namespace imgtool {

struct Stored {
  std::string data;
  int width = 0, height = 0;
  Header source;
  bool damaged = false;          // some of it is libjpeg's guess
  const char* how = "recoded";   // or "passed", untouched; or "transcoded", rewritten with the same pixels
};

// Decodes a JPEG, shrinks it to the target and encodes it; turned upright when `upright` and its EXIF says so. With
// `fit` one that needs neither is passed on. Throws ImageError, also when the data ends before the image does.
Stored recode(Worker& worker, const uint8_t* data, size_t size, const Target& target, const Coding& coding, bool upright, bool fit);

}  // namespace imgtool
