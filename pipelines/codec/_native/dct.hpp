// The forward and inverse DCT of 8 x 8 blocks, in the arithmetic of libjpeg's accurate integer method: samples and
// coefficients equal those of JDCT_ISLOW. A block is 64 quantised coefficients in natural order (row by row).
#pragma once

#include <cstddef>
#include <cstdint>

namespace imgtool {

constexpr int kSide = 8, kArea = 64;   // of a block

// The position in natural order of each zigzag index (T.81, figure A.6). Indices after the last one, which an end of
// block or a damaged run leads to, share its position.
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

// Quantiser steps (1 to 65535), and their inverses for division.
struct Steps {
  int32_t step[kArea];
  float inverse[kArea];                // 1 / (8 step), includes the forward DCT's scale
  void set(const uint16_t* steps);
};

// Converts `count` adjacent blocks to samples. `last[i]` is the zigzag index of the last coefficient of block i that
// can differ from 0. Row y of block i is written to out + y * pitch + 8 * i.
void inverse_dct(const int16_t* blocks, const uint8_t* last, int count, const Steps& steps, uint8_t* out, size_t pitch);

// Converts `count` adjacent blocks of samples to coefficients.
void forward_dct(const uint8_t* samples, size_t pitch, int count, const Steps& steps, int16_t* blocks);

// Rounds coefficients to those of other quantiser steps.
void requantise(const int16_t* from, const Steps& from_steps, const Steps& to_steps, int count, int16_t* to);

// Converts 2 x 2 blocks (two each in `above` and `below`) to one block of half the resolution: the DCT of the four
// inverse DCTs of their lowest 4 x 4 frequencies, put together. This is one matrix multiplication from each side.
// `last` is the highest zigzag index in the four blocks of a coefficient that can differ from 0.
void halve(const int16_t* const above[2], const int16_t* const below[2], int last, const Steps& from, const Steps& to,
           int16_t* out);

}  // namespace imgtool
