// libFuzzer target: planes, pixels and crops must be those of libjpeg, and what recode() keeps must be undamaged. The
// last 16 bytes are settings, as in execute.hpp. Built without sanitizers, for speed.
#include "libfuzzer.hpp"

namespace fuzz {
namespace {

// libjpeg cannot upsample these to RGB, which our crops and planes do not need.
bool is_exempt(const std::string& error) {
  return error.find("Fractional sampling") != std::string::npos;
}

// Tells whether all coefficients are such as samples can have; processors differ in what they make of others. libjpeg
// decodes the first scan only, if it has all components.
bool is_ordinary(const uint8_t* data, size_t size, const Header& header) {
  Bytes bytes(data, data + size);
  for (const Segment& s : segments_of(bytes)) {
    if (s.marker != 0xDA) continue;
    if (header.progressive || s.end - s.begin < 5 || bytes[s.begin + 4] != header.components) break;
    bytes.resize(s.end);
    bytes.insert(bytes.end(), {0xFF, 0xD9});
    break;
  }
  const Reading reading = read_with_libjpeg(bytes.data(), bytes.size(), As::coefficients);
  return reading.error.empty() && reading.ordinary;
}

void compare_planes(Decoder& decoder, const uint8_t* data, size_t size, bool ordinary) {
  static Planes planes;
  const Reading want = read_with_libjpeg(data, size, As::planes);
  decoder.open(data, size);
  try {
    decoder.read(planes);
  } catch (const ImageError& e) {
    if (want.error.empty()) found("planes: libjpeg reads what we refuse:", e.what());
    return;
  }
  if (!want.error.empty()) return found("planes: we read what libjpeg refuses:", want.error);
  const ErrorState& state = decoder.state();
  if (want.truncated || want.damaged || state.truncated || state.damaged || !ordinary) return;
  if (planes.count != want.count) found("planes: another number");
  for (int k = 0; k < want.count; ++k)
    for (int y = 0; y < want.plane_h[k]; ++y)
      if (std::memcmp(planes.plane[k].row(y), want.planes[k].data() + want.stride[k] * static_cast<size_t>(y),
                      static_cast<size_t>(want.plane_w[k])))
        found("planes: other samples", "plane " + std::to_string(k) + ", row " + std::to_string(y));
}

void compare_pixels(Worker& worker, const uint8_t* data, size_t size, const Reading& want) {
  Image image;
  try {
    image = decode_image(worker, data, size, {}, false);
  } catch (const ImageError& e) {
    if (want.error.empty() && !want.truncated)
      found("pixels: libjpeg reads what we refuse:", e.what());
    return;
  }
  if (!want.error.empty()) found("pixels: we read what libjpeg refuses:", want.error);
  if (image.damaged != want.damaged) found("pixels: another status");
  for (size_t i = 0; i < image.rgb.size() / 3; ++i)
    if (std::memcmp(&image.rgb[3 * i], &want.rgbx[4 * i], 3)) found("pixels: differ", std::to_string(i));
}

// Chroma is resampled differently, so that only 4:4:4 is exact.
void compare_crop(Worker& worker, const uint8_t* data, size_t size, const Header& header, const Settings& s, const Reading& want) {
  Crop crop = s.crop(header.width, header.height, 1, 1);
  if (crop.x < 0 || crop.y < 0 || crop.w < 1 || crop.h < 1 || crop.w > header.width - crop.x || crop.h > header.height - crop.y) return;
  crop.window_x = crop.window_y = 0;
  crop.resized_w = crop.w, crop.resized_h = crop.h;
  crop.flip = false;
  std::vector<uint8_t> out(3 * static_cast<size_t>(crop.w) * crop.h);
  const bool sound = want.error.empty() && !want.truncated && !want.damaged;
  try {
    decode_crop(worker, data, size, header.width, header.height, crop, out.data(), crop.w, crop.h);
  } catch (const ImageError& e) {
    if (sound) found("crop: libjpeg reads what we refuse:", e.what());
    return;
  }
  if (!want.error.empty() && !is_exempt(want.error)) found("crop: we read what libjpeg refuses:", want.error);
  if (!sound) return;
  double sum = 0;
  int most = 0;
  for (int y = 0; y < crop.h; ++y)
    for (int x = 0; x < crop.w; ++x)
      for (int k = 0; k < 3; ++k) {
        const size_t at = 4 * (static_cast<size_t>(crop.y + y) * header.width + crop.x + x) + k;
        const int difference = std::abs(out[3 * (static_cast<size_t>(y) * crop.w + x) + k] - want.rgbx[at]);
        sum += difference;
        most = std::max(most, difference);
      }
  const bool full_chroma = header.chroma_h == header.h_samp && header.chroma_v == header.v_samp;
  if (full_chroma ? most > 4 : sum > 40.0 * static_cast<double>(out.size())) found("crop: other pixels", std::to_string(most));
}

void check_recode(Worker& worker, const uint8_t* data, size_t size, const Header& header, const Settings& s, const Reading& want) {
  const auto keep = static_cast<Keep>(s.byte(1) % 3);
  const Target target = keep == Keep::original ? Target{} : s.target();
  Stored stored;
  try {
    stored = recode(worker, data, size, target, s.coding(), s.bit(4, 2), keep);
  } catch (const ImageError& e) {
    if (want.error.empty() && !want.truncated)
      found("recode: libjpeg reads what we refuse:", e.what());
    return;
  }
  check_stored(stored);
  if (!want.error.empty() && !is_exempt(want.error)) found("recode: we read what libjpeg refuses:", want.error);
  if (want.truncated) found("recode: of a truncated image");
  if (want.error.empty() && want.damaged && !stored.damaged && header.regular) found("recode: damage without a status");
}

}  // namespace
}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fuzz;
  static Worker worker;
  if (size < kSettings) return 0;
  size -= kSettings;
  const Settings settings{data + size};
  current_isa.store(static_cast<Isa>(settings.byte(14) % (static_cast<int>(best_isa()) + 1)));
  try {
    const Header header = worker.decoder.open(data, size);
    worker.decoder.end();
    if (static_cast<int64_t>(header.width) * header.height > kPixels) return 0;
    const bool inks = header.space == JCS_CMYK || header.space == JCS_YCCK;
    const bool ordinary = is_ordinary(data, size, header);
    if (header.space == JCS_YCbCr || header.space == JCS_GRAYSCALE) compare_planes(worker.decoder, data, size, ordinary);
    worker.decoder.end();
    const Reading want = read_with_libjpeg(data, size);
    if (!inks) compare_pixels(worker, data, size, want);
    if (!inks && ordinary) compare_crop(worker, data, size, header, settings, want);
    check_recode(worker, data, size, header, settings, want);
  } catch (const ImageError&) {
  }
  worker.decoder.end();
  return 0;
}
