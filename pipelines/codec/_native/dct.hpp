// The DCT of 8 x 8 blocks both ways, in the arithmetic of libjpeg's accurate integer method: the samples and
// coefficients equal those of JDCT_ISLOW. Blocks are 64 quantised coefficients in natural order, rows of frequencies.
#pragma once

#include <cstddef>
#include <cstdint>

namespace imgtool {

constexpr int kSide = 8, kArea = 64;   // of a block

// The place of each zigzag index (T.81, figure A.6); indices behind the last, where an end of block or a damaged run
// leads, share its place.
struct Zigzag {
  uint8_t place[4 * kArea];
  constexpr Zigzag() : place() {
    int i = 0;
    for (int sum = 0; sum < 2 * kSide - 1; ++sum)
      for (int k = 0; k <= sum; ++k) {
        const int y = sum % 2 ? k : sum - k, x = sum - y;
        if (x < kSide && y < kSide) place[i++] = static_cast<uint8_t>(kSide * y + x);
      }
    for (; i < 4 * kArea; ++i) place[i] = kArea - 1;
  }
};
constexpr Zigzag kZigzag;

// Quantiser steps (1 to 65535), and what division by them takes.
struct Steps {
  int32_t step[kArea];
  float inverse[kArea];                // of the forward DCT's scale too: 1 / (8 step)
  void set(const uint16_t* steps);
};

// `count` blocks side by side to samples; `last[i]`: the zigzag index of block i's
// last coefficient that can differ from 0. Row y of block i is written to out + y * pitch + 8 * i.
void inverse_dct(const int16_t* blocks, const uint8_t* last, int count, const Steps& steps, uint8_t* out, size_t pitch);

// `count` blocks of samples side by side to coefficients.
void forward_dct(const uint8_t* samples, size_t pitch, int count, const Steps& steps, int16_t* blocks);

// The nearest coefficients of other steps.
void requantise(const int16_t* from, const Steps& from_steps, const Steps& to_steps, int count, int16_t* to);

// Four blocks, 2 x 2, to the one that shows the same at half the resolution: `above` and `below` point at two each. The
// inverse DCT of their 4 x 4 lowest frequencies, put together, and its DCT again, which is one matrix from each side.
// `last` is the highest zigzag index in them of what can differ from 0.
void halve(const int16_t* const above[2], const int16_t* const below[2], int last, const Steps& from, const Steps& to,
           int16_t* out);

}  // namespace imgtool
