#include "markers.hpp"

#include <cstring>

namespace imgtool {
namespace {

bool is_restart(uint8_t marker) { return marker >= 0xD0 && marker <= 0xD7; }

// Returns the position of the next 0xFF, or `size`.
size_t next_ff(const uint8_t* data, size_t at, size_t size) {
  const void* found = at < size ? std::memchr(data + at, 0xFF, size - at) : nullptr;
  return found ? static_cast<size_t>(static_cast<const uint8_t*>(found) - data) : size;
}

}  // namespace

End end_of_image(const uint8_t* data, size_t size) {
  End end;
  end.plain = true;
  int scans = 0, restarts = 0;
  bool in_scan = false;
  for (size_t at = 2;;) {
    const size_t found = next_ff(data, at, size);
    if (!in_scan && found != at) end.plain = false;
    at = found;
    while (at < size && data[at] == 0xFF) ++at;        // fill bytes
    if (at >= size) return {};
    const uint8_t marker = data[at++];
    if (marker == 0xD9) {
      end.at = at;
      end.plain = end.plain && scans == 1 && in_scan;
      return end;
    }
    if (in_scan && marker == 0) continue;              // a stuffed byte
    if (marker == 0 || marker == 1 || is_restart(marker)) {
      end.plain = end.plain && in_scan && marker == 0xD0 + restarts++ % 8;
      continue;
    }
    if (marker < 0xC0 || marker == 0xD8 || at + 2 > size) return {};    // another image, or not a JPEG
    at += static_cast<size_t>(data[at]) << 8 | data[at + 1];
    in_scan = marker == 0xDA;
    scans += in_scan;
  }
}

}  // namespace imgtool
