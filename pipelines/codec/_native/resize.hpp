// Antialiased bilinear resampling, in Pillow's fixed-point arithmetic: the pixels equal Image.resize(..., BILINEAR).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace imgtool {

// The taps that make each output pixel of one axis.
struct Axis {
  int lo = 0, hi = 0;            // the source pixels [lo, hi) that any output pixel needs
  int taps = 0;                  // coefficients stored per output pixel
  std::vector<int> first, count; // per output pixel: first source pixel (minus lo) and how many
  std::vector<int32_t> weights;  // taps per output pixel, in units of 2^-22

  int size() const { return static_cast<int>(first.size()); }
};

// Outputs [window, window + window_size) of resampling source samples [in0, in0 + in_length), reversed when `flip`: output i
// is centred on start + (i + 1/2) * scale, counted from in0. As Pillow on the cropped image (then start is 0, and scale
// in_length / output size): triangle filter, widened by the scale when shrinking, that does not look outside the range.
void make_axis(Axis& axis, double start, double scale, int in0, int in_length, int window, int window_size, bool flip);

// Resamples rows one by one, so that a source row is touched while it is in cache and never stored.
class Resizer {
 public:
  Axis cols, rows;
  // Call once after the axes are made.
  void begin();
  // The next source row: pixel cols.lo first, 4 bytes a pixel; rows.hi - rows.lo of them are expected.
  void push(const uint8_t* rgbx);
  // Writes rows.size() x cols.size() RGB pixels, `stride` bytes a row.
  void finish(uint8_t* rgb, size_t stride);

 private:
  std::vector<uint8_t> lines_;   // horizontally resampled rows, RGB
  std::vector<uint8_t> out_line_;
  size_t pitch_ = 0;
  int pushed_ = 0;
};

}  // namespace imgtool
