// Converts an image to the form in which a shard stores it.
#pragma once

#include <cstdint>
#include <string>

#include "image.hpp"

namespace imgtool {

// Which images that need neither rotating nor shrinking are kept.
enum class Keep {
  none,
  fit,                           // YCbCr of common subsampling; what is not plain baseline is rewritten without loss
  original,                      // YCbCr and grayscale; only what is irregular or lacks its end is rewritten
};

struct Stored {
  std::string data;
  int width = 0, height = 0;
  Header source;
  bool damaged = false;          // libjpeg filled in some pixels
  const char* how = "recoded";   // or "passed": unchanged; or "transcoded": rewritten with the same pixels
};

// Decodes a JPEG, applies its EXIF orientation if `upright`, shrinks it to the target and encodes it, unless it is
// kept: only an image whose data is complete and undamaged is. Throws ImageError, also if the data ends before the image
// does.
Stored recode(Worker& worker, const uint8_t* data, size_t size, const Target& target, const Coding& coding, bool upright, Keep keep);

}  // namespace imgtool
