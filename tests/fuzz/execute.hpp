// One execution: a JPEG, and after it 16 bytes of settings that choose what is done with it.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "isa.hpp"
#include "libjpeg.hpp"
#include "recode.hpp"

namespace fuzz {

using namespace imgtool;

constexpr size_t kSettings = 16;
constexpr int64_t kPixels = 200'000;     // larger images are opened only, for speed

[[noreturn]] inline void found(const char* what, const std::string& more = "") {
  std::fprintf(stderr, "FOUND: %s %s\n", what, more.c_str());
  std::abort();
}

// The settings: byte(i), and numbers in [low, high] made of two of them.
struct Settings {
  const uint8_t* bytes;
  int byte(int i) const { return bytes[i]; }
  bool bit(int i, int n) const { return bytes[i] >> n & 1; }
  int number(int i, int low, int high) const {
    return high <= low ? low : low + (bytes[i] << 8 | bytes[(i + 1) % kSettings]) % (high - low + 1);
  }
  Coding coding() const {
    static const Subsampling kSubsamplings[] = {{2, 2}, {2, 1}, {1, 1}};
    return {1 + byte(2) % 100, kSubsamplings[byte(3) % 3], bit(3, 6) ? 4 : bit(3, 7) ? 1 + byte(3) % 16 : 0};
  }
  Target target() const { return {bit(4, 0) ? 1 + byte(5) : 0, bit(4, 1) ? 1 + byte(6) : 0}; }
  // A crop inside an image, or with `wild` any numbers.
  Crop crop(int width, int height, int out_w, int out_h) const {
    Crop c{};
    c.x = number(5, 0, width - 1), c.y = number(6, 0, height - 1);
    c.w = number(7, 1, width - c.x), c.h = number(8, 1, height - c.y);
    c.window_x = bit(9, 0) ? byte(10) : 0, c.window_y = bit(9, 1) ? byte(11) : 0;
    c.resized_w = out_w + c.window_x + (bit(9, 2) ? byte(12) : 0);
    c.resized_h = out_h + c.window_y + (bit(9, 3) ? byte(13) : 0);
    c.flip = bit(9, 4);
    if (bit(9, 5)) c.x = c.y = 0, c.w = width, c.h = height;
    if (bit(9, 6) && bit(9, 7)) {
      static const int kWild[] = {INT32_MAX, INT32_MIN, -1, 0, 1, INT32_MAX - 1, 65536, 1 << 30};
      int* const fields[] = {&c.x, &c.y, &c.w, &c.h, &c.resized_w, &c.resized_h, &c.window_x, &c.window_y};
      *fields[byte(10) % 8] = kWild[byte(11) % 8];
      *fields[byte(12) % 8] = kWild[byte(13) % 8];
    }
    return c;
  }
};

// Requires that a job gives the same with a worker that has seen other images, and with a new one.
template <class Job>
auto on_both(const char* name, Worker& used, Job job) -> decltype(job(used)) {
  Worker fresh;
  std::string error;
  decltype(job(used)) out{}, again{};
  try {
    out = job(used);
  } catch (const ImageError& e) {
    error = e.what();
  }
  used.decoder.end();
  try {
    again = job(fresh);
  } catch (const ImageError& e) {
    if (error != e.what()) found(name, "after other images: '" + error + "', alone: '" + e.what() + "'");
    throw;
  }
  if (!error.empty()) found(name, "fails after other images: " + error);
  if (out != again) found(name, "differs after other images");
  return out;
}

inline std::string text(const uint8_t* from, size_t size) { return {reinterpret_cast<const char*>(from), size}; }

// The output of a job, behind which ASan sees writes.
struct Pixels {
  size_t size;
  std::unique_ptr<uint8_t[]> at;
  Pixels(int width, int height) : size(3 * static_cast<size_t>(width) * height), at(new uint8_t[size]()) {}
};

inline void check_stored(const Stored& stored) {
  const Reading reading = read_with_libjpeg(reinterpret_cast<const uint8_t*>(stored.data.data()), stored.data.size());
  if (!reading.error.empty()) found("recode: libjpeg refuses the result", stored.how + (": " + reading.error));
  if (reading.truncated || reading.damaged) found("recode: the result is damaged", stored.how);
  if (reading.width != stored.width || reading.height != stored.height) found("recode: the result has another size");
}

// Takes the bytes for pixels.
inline void execute_pixels(Worker& worker, const uint8_t* data, size_t size, const Settings& s) {
  const int width = 1 + s.byte(14) % 96, height = 1 + s.byte(15) % 96, out_w = 1 + s.byte(3) % 80, out_h = 1 + s.byte(4) % 80;
  Pixels image(width, height);
  for (size_t i = 0; size && i < image.size; ++i) image.at[i] = data[i % size];
  if (s.bit(1, 0)) {
    Stored stored;
    stored.data = encode(image.at.get(), width, height, 3 * static_cast<size_t>(width), s.coding());
    stored.width = width, stored.height = height;
    return check_stored(stored);
  }
  const Crop crop = s.crop(width, height, out_w, out_h);
  on_both("pixels", worker, [&](Worker& w) {
    Pixels out(out_w, out_h);
    if (s.bit(1, 1))
      crop_raw(w, image.at.get(), s.bit(1, 2) ? size : image.size, width, height, crop, out.at.get(), out_w, out_h);
    else
      resize_crop(w, image.at.get(), width, height, crop, out.at.get(), out_w, out_h);
    return text(out.at.get(), out.size);
  });
}

inline void execute_jpeg(Worker& worker, const uint8_t* data, size_t size, const Settings& s) {
  const Header header = worker.decoder.open(data, size);
  worker.decoder.end();
  if (static_cast<int64_t>(header.width) * header.height > kPixels) return;
  switch (s.byte(0) % 5) {
    case 0:
      on_both("decode", worker, [&](Worker& w) {
        const Image image = decode_image(w, data, size, s.target(), s.bit(4, 2));
        return text(image.rgb.data(), image.rgb.size()) + (image.damaged ? "damaged" : "");
      });
      return;
    case 1: {
      const int out_w = 1 + s.byte(1) % 80, out_h = 1 + s.byte(2) % 80;
      const Crop crop = s.crop(header.width, header.height, out_w, out_h);
      on_both("crop", worker, [&](Worker& w) {
        Pixels out(out_w, out_h);
        decode_crop(w, data, size, header.width + (s.byte(3) == 255), header.height, crop, out.at.get(), out_w, out_h);
        return text(out.at.get(), out.size);
      });
      return;
    }
    case 2: {
      const Crop crop = s.crop(header.width, header.height, 1, 1);
      if (crop.x < 0 || crop.y < 0 || crop.w < 1 || crop.h < 1 || crop.w > header.width - crop.x || crop.h > header.height - crop.y)
        return;                                        // api.cpp checks this
      worker.decoder.open(data, size);
      worker.decoder.read_coefficients(crop.x, crop.y, crop.w, crop.h, s.bit(4, 2));
      worker.decoder.end();
      return;
    }
    default: {
      const auto keep = static_cast<Keep>(s.byte(1) % 3);
      const Target target = keep == Keep::original ? Target{} : s.target();
      on_both("recode", worker, [&](Worker& w) {
        const Stored stored = recode(w, data, size, target, s.coding(), s.bit(4, 2), keep);
        check_stored(stored);
        return stored.data + stored.how + (stored.damaged ? "damaged" : "");
      });
    }
  }
}

inline void execute(const uint8_t* data, size_t size) {
  static Worker worker;
  if (size < kSettings) return;
  size -= kSettings;
  const Settings settings{data + size};
  // A copy of exactly this size, so that ASan sees reads behind its end.
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[size]);
  std::memcpy(copy.get(), data, size);
  current_isa.store(static_cast<Isa>(settings.byte(14) % (static_cast<int>(best_isa()) + 1)));
  end_of_image(copy.get(), size);
  exif_orientation(copy.get(), size);
  try {
    (settings.byte(0) % 16 == 15 ? execute_pixels : execute_jpeg)(worker, copy.get(), size, settings);
  } catch (const ImageError&) {
  }
  worker.decoder.end();
}

}  // namespace fuzz
