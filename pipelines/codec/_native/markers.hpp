// Finds the end of a JPEG by its markers (ITU-T T.81, annex B), without decoding it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace imgtool {

struct End {
  size_t at = 0;                 // after the end marker; 0 if there is none
  bool plain = false;            // a single scan right before it, restart markers in order, only segments before
};

// `data` must begin with a start marker.
End end_of_image(const uint8_t* data, size_t size);

}  // namespace imgtool
