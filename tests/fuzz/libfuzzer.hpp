// The mutators of libFuzzer's targets: by structure for the JPEG, by libFuzzer for the settings after it.
#pragma once

#include "execute.hpp"
#include "mutate.hpp"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

namespace fuzz {

inline size_t write(const Bytes& jpeg, const uint8_t* settings, uint8_t* out, size_t most) {
  const size_t size = std::min(jpeg.size(), most - kSettings);
  Bytes made(jpeg.begin(), jpeg.begin() + static_cast<long>(size));
  made.insert(made.end(), settings, settings + kSettings);
  std::memcpy(out, made.data(), made.size());
  return made.size();
}

}  // namespace fuzz

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  using namespace fuzz;
  if (most <= kSettings) return size;
  std::minstd_rand random(seed + 1);
  uint8_t settings[kSettings] = {};
  const size_t length = size > kSettings ? size - kSettings : 0;
  if (length) std::memcpy(settings, data + length, kSettings);
  Bytes jpeg(data, data + length);
  const auto what = random() % 10;
  if (what < 3)
    for (auto i = random() % 4 + 1; i; --i) settings[random() % kSettings] = static_cast<uint8_t>(random());
  if (what == 9) {
    jpeg.resize(most - kSettings);
    jpeg.resize(LLVMFuzzerMutate(jpeg.data(), length, jpeg.size()));
  } else if (what) {
    for (auto i = random() % 3 + 1; i; --i) Mutator(static_cast<uint32_t>(random()), jpeg).mutate();
  }
  return write(jpeg, settings, data, most);
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* a, size_t a_size, const uint8_t* b, size_t b_size, uint8_t* out,
                                            size_t most, unsigned seed) {
  using namespace fuzz;
  if (a_size <= kSettings || b_size <= kSettings || most <= kSettings) return 0;
  Bytes jpeg(a, a + a_size - kSettings);
  const Bytes other(b, b + b_size - kSettings);
  for (unsigned i = 0; i < 4; ++i) Mutator(seed + i, jpeg, &other).mutate();
  return write(jpeg, seed % 2 ? a + a_size - kSettings : b + b_size - kSettings, out, most);
}
