#include "recode.hpp"

#include <numeric>

#include "markers.hpp"

namespace imgtool {
namespace {

// Tells whether all common readers support these sampling factors: 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1.
bool is_common(int h, int v) { return (h == 1 && v <= 2) || (h == 2 && v <= 2) || (h == 4 && v == 1); }

// Rewrites the image without loss: true if `out` has it.
bool rewrite(const uint8_t* data, size_t size, int divide_h, int divide_v, Stored& out) {
  try {
    out.data = transcode(data, size, divide_h, divide_v);
    out.how = "transcoded";
    return true;
  } catch (const ImageError&) {
    return false;                                      // decoding it will report the error
  }
}

// Keeps an image of Keep::fit unchanged or rewrites it without loss, if possible: true if `out` has it.
bool fits(Decoder& decoder, const uint8_t* data, size_t size, const Header& header, Stored& out) {
  if (header.space != JCS_YCbCr || header.chroma_h == 0) return false;
  const int divide_h = std::gcd(header.h_samp, header.chroma_h), divide_v = std::gcd(header.v_samp, header.chroma_v);
  if (header.chroma_h != divide_h || header.chroma_v != divide_v) return false;   // finer chroma, or 3 : 2
  if (!is_common(header.h_samp / divide_h, header.v_samp / divide_v)) return false;
  if (!header.progressive && !header.arithmetic && header.regular && divide_h == 1 && divide_v == 1) {
    const End end = end_of_image(data, size);
    if (end.plain && decoder.read_whole()) {
      out.data.assign(reinterpret_cast<const char*>(data), end.at);
      out.how = end.at == size ? "passed" : "transcoded";    // bytes after the image are dropped
      return true;
    }
  }
  return rewrite(data, size, divide_h, divide_v, out);
}

// The same for Keep::original.
bool keeps(Decoder& decoder, const uint8_t* data, size_t size, const Header& header, Stored& out) {
  if ((header.space != JCS_YCbCr && header.space != JCS_GRAYSCALE) || header.fractional) return false;
  try {
    const End end = end_of_image(data, size);
    if (header.regular && end.at && decoder.is_whole(end.plain)) {
      out.data.assign(reinterpret_cast<const char*>(data), size);
      out.how = "passed";
      return true;
    }
  } catch (const ImageError&) {
    return false;
  }
  return rewrite(data, size, 1, 1, out);
}

void release_large(Planes& planes) {
  for (Plane& plane : planes.plane)
    if (plane.data.capacity() > kKeep) std::vector<uint8_t>().swap(plane.data);
}

}  // namespace

Stored recode(Worker& worker, const uint8_t* data, size_t size, const Target& target, const Coding& coding, bool upright, Keep keep) {
  Stored out;
  Decoder& decoder = worker.decoder;
  const Header header = decoder.open(data, size);
  out.source = header;
  target_size(target, header.width, header.height, &out.width, &out.height);
  const bool turned = upright && header.orientation > 1;
  const bool same_size = out.width == header.width && out.height == header.height;
  if (keep != Keep::none && same_size && !turned) {
    const bool kept = (keep == Keep::fit ? fits : keeps)(decoder, data, size, header, out);
    decoder.end();
    if (kept) return out;
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
