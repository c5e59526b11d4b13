#include "recode.hpp"

#include <cstring>
#include <numeric>

namespace imgtool {
namespace {

// Returns where a JPEG with a single scan ends: after its end marker. 0 if it is incomplete or has more scans.
// Checks only the markers (ITU-T T.81, annex B), not the entropy-coded bits.
size_t end_of_single_scan(const uint8_t* data, size_t size) {
  size_t at = 2;                                       // after the start marker, which libjpeg has checked
  for (;;) {
    while (at + 1 < size && data[at] == 0xFF && data[at + 1] == 0xFF) ++at;   // fill bytes
    if (at + 4 > size || data[at] != 0xFF) return 0;
    const uint8_t marker = data[at + 1];
    if (marker < 0xC0 || (marker >= 0xD0 && marker <= 0xD9)) return 0;
    at += 2 + (static_cast<size_t>(data[at + 2]) << 8 | data[at + 3]);
    if (marker == 0xDA) break;                         // start of scan
  }
  for (int restart = 0; at < size; at += 2) {
    const void* found = std::memchr(data + at, 0xFF, size - at);
    if (!found) return 0;
    at = static_cast<size_t>(static_cast<const uint8_t*>(found) - data);
    while (at + 1 < size && data[at + 1] == 0xFF) ++at;
    if (at + 1 >= size) return 0;
    const uint8_t marker = data[at + 1];
    if (marker == 0xD9) return at + 2;
    if (marker == 0x00) continue;
    if (marker != 0xD0 + restart) return 0;            // restart markers count modulo 8
    restart = (restart + 1) % 8;
  }
  return 0;
}

// Tells whether all common readers support these sampling factors: 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1.
bool is_common(int h, int v) { return (h == 1 && v <= 2) || (h == 2 && v <= 2) || (h == 4 && v == 1); }

// Keeps the image unchanged or rewrites it without loss, if possible: true if `out` has it.
bool pass(const uint8_t* data, size_t size, const Header& header, Stored& out) {
  if (header.space != JCS_YCbCr || header.chroma_h == 0) return false;
  const int divide_h = std::gcd(header.h_samp, header.chroma_h), divide_v = std::gcd(header.v_samp, header.chroma_v);
  if (header.chroma_h != divide_h || header.chroma_v != divide_v) return false;   // finer chroma, or 3 : 2
  if (!is_common(header.h_samp / divide_h, header.v_samp / divide_v)) return false;
  if (!header.progressive && !header.arithmetic && divide_h == 1 && divide_v == 1) {
    if (const size_t end = end_of_single_scan(data, size)) {
      out.data.assign(reinterpret_cast<const char*>(data), end);
      out.how = end == size ? "passed" : "transcoded";   // bytes after the image are dropped
      return true;
    }
  }
  try {
    out.data = transcode(data, size);
    out.how = "transcoded";
    return true;
  } catch (const ImageError&) {
    return false;                                      // decoding it will report the error
  }
}

void release_large(Planes& planes) {
  for (Plane& plane : planes.plane)
    if (plane.data.capacity() > kKeep) std::vector<uint8_t>().swap(plane.data);
}

}  // namespace

Stored recode(Worker& worker, const uint8_t* data, size_t size, const Target& target, const Coding& coding, bool upright, bool fit) {
  Stored out;
  Decoder& decoder = worker.decoder;
  const Header header = decoder.open(data, size);
  out.source = header;
  target_size(target, header.width, header.height, &out.width, &out.height);
  const bool turned = upright && header.orientation > 1;
  const bool same_size = out.width == header.width && out.height == header.height;
  if (fit && same_size && !turned) {
    decoder.end();
    if (pass(data, size, header, out)) return out;
    decoder.open(data, size);
  }
  if (header.space == JCS_YCbCr && same_size && !turned && coding.subsampling.x == 2 && coding.subsampling.y == 2 &&
      decoder.requantise(coding, out.data)) {
    decoder.end();
    return out;
  }
  if ((header.space == JCS_YCbCr || header.space == JCS_GRAYSCALE) && !turned) {
    static thread_local Planes decoded, resized;
    decoder.read(decoded);
    check_whole(decoder, header);
    out.damaged = decoder.state().damaged;
    decoder.end();
    resample(decoded, resized, out.width, out.height, coding.subsampling);
    out.data = encode(resized, coding);
    release_large(decoded);
    release_large(resized);
    return out;
  }
  const Image image = decode_image(worker, data, size, target, upright);
  out.width = image.width;
  out.height = image.height;
  out.damaged = image.damaged;
  out.data = encode(image.rgb.data(), image.width, image.height, 3 * static_cast<size_t>(image.width), coding);
  return out;
}

}  // namespace imgtool
