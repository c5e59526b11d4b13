// Converts an image to the form in which a shard stores it.
#pragma once

#include <cstdint>
#include <string>

#include "image.hpp"

namespace imgtool {

struct Stored {
  std::string data;
  int width = 0, height = 0;
  Header source;
  bool damaged = false;          // libjpeg filled in some pixels
  const char* how = "recoded";   // or "passed": unchanged; or "transcoded": rewritten with the same pixels
};

// Decodes a JPEG, applies its EXIF orientation if `upright`, shrinks it to the target and encodes it. With `fit`, an
// image that needs neither rotating nor shrinking is kept. Throws ImageError, also if the data ends before the image
// does.
Stored recode(Worker& worker, const uint8_t* data, size_t size, const Target& target, const Coding& coding, bool upright, bool fit);

}  // namespace imgtool
