// Prints, for each JPEG file, a hash of the bytes that each job of the codec makes from it. The hashes are the same on
// every processor, with every compiler and instruction set. Uses no Python, so that it can be built for other processors.
//
//     hashes INSTRUCTION_SET FILE...
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "isa.hpp"
#include "image.hpp"
#include "recode.hpp"

using namespace imgtool;

namespace {

// FNV-1a, 64 bits.
uint64_t hash_of(const void* data, size_t size) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < size; ++i) hash = (hash ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3;
  return hash;
}

// Prints a line with the hash of the bytes that the job returns, or with its error.
template <class Job>
void report(const std::string& name, Job job) {
  try {
    const auto bytes = job();
    std::printf("%s %016llx\n", name.c_str(), static_cast<unsigned long long>(hash_of(bytes.data(), bytes.size())));
  } catch (const ImageError& error) {
    std::printf("%s %s\n", name.c_str(), error.what());
  }
}

void report_all(const std::string& name, const std::string& file) {
  static Worker worker;
  const auto* data = reinterpret_cast<const uint8_t*>(file.data());
  const size_t size = file.size();
  Image image;
  report(name + " decode", [&] { return (image = decode_image(worker, data, size, {}, true)).rgb; });
  report(name + " shrink", [&] { return decode_image(worker, data, size, {0, 50}, false).rgb; });
  Header header;
  try {
    header = worker.decoder.open(data, size);
    worker.decoder.end();
  } catch (const ImageError&) {
    return;
  }
  const int w = header.width, h = header.height;
  const std::pair<Crop, int> crops[] = {{{0, 0, w, h, 64, 64, 0, 0, false}, 64},
                                        {{w / 3, h / 4, w - w / 3, h - h / 4, 224, 224, 0, 0, true}, 224},
                                        {{w / 2, h / 2, 1, 1, 9, 9, 0, 0, false}, 9},
                                        {{0, 0, w, h, 90, 80, 17, 5, false}, 33}};
  for (const auto& [crop, side] : crops) {
    std::vector<uint8_t> out(3 * static_cast<size_t>(side) * side);
    const std::string which = std::to_string(crop.x) + "+" + std::to_string(crop.w) + "->" + std::to_string(side);
    report(name + " crop " + which, [&, c = crop, n = side] {
      return decode_crop(worker, data, size, w, h, c, out.data(), n, n), out;
    });
    if (image.width != w || image.rgb.empty()) continue;
    report(name + " raw " + which, [&, c = crop, n = side] {
      return crop_raw(worker, image.rgb.data(), image.rgb.size(), w, h, c, out.data(), n, n), out;
    });
    report(name + " resize " + which, [&, c = crop, n = side] {
      return resize_crop(worker, image.rgb.data(), w, h, c, out.data(), n, n), out;
    });
  }
  for (int quality : {1, 75, 90, 100})
    for (Subsampling s : {Subsampling{2, 2}, Subsampling{2, 1}, Subsampling{1, 1}})
      for (int max_side : {0, 100})
        for (int restart : {0, 4}) {
          const std::string which = std::to_string(quality) + " " + std::to_string(s.x) + std::to_string(s.y) + " " +
                                    std::to_string(max_side) + " " + std::to_string(restart);
          const Coding coding{quality, s, restart};
          report(name + " recode " + which,
                 [&] { return recode(worker, data, size, {max_side, 0}, coding, true, Keep::none).data; });
          if (max_side == 0 && !image.rgb.empty())
            report(name + " encode " + which, [&] {
              return encode(image.rgb.data(), image.width, image.height, 3 * static_cast<size_t>(image.width),
                            coding);
            });
        }
  report(name + " fit", [&] { return recode(worker, data, size, {300, 0}, {90, {}, 0}, true, Keep::fit).data; });
  report(name + " original", [&] { return recode(worker, data, size, {}, {90, {}, 0}, true, Keep::original).data; });
}

}  // namespace

int main(int count, char** arguments) {
  int isa = static_cast<int>(best_isa());
  while (isa >= 0 && (count < 2 || std::string(kIsaNames[isa]) != arguments[1])) --isa;
  if (isa < 0) {
    std::cerr << "usage: hashes INSTRUCTION_SET FILE...\n";
    return 2;
  }
  current_isa = static_cast<Isa>(isa);
  for (int i = 2; i < count; ++i) {
    std::ifstream stream(arguments[i], std::ios::binary);
    const std::string file((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    if (!stream) {
      std::cerr << arguments[i] << " cannot be read\n";
      return 2;
    }
    report_all(std::to_string(i - 2), file);
  }
}
