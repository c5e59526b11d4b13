// Antialiased bilinear resampling in Pillow's fixed-point arithmetic: the pixels equal Image.resize(..., BILINEAR).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace imgtool {

// The filter taps of each output pixel along one axis.
struct Axis {
  int lo = 0, hi = 0;            // the source pixels [lo, hi) that the output pixels need
  int taps = 0;                  // weights stored per output pixel
  std::vector<int> first, count; // per output pixel: first source pixel (minus lo) and number
  std::vector<int32_t> weights;  // taps per output pixel, in units of 2^-22

  int size() const { return static_cast<int>(first.size()); }
};

// Makes the axis that resamples source samples [in0, in0 + in_length) to outputs [window, window + window_size), which
// are reversed if `flip`. Output i is centred on start + (i + 1/2) * scale, relative to in0. The filter is Pillow's on
// the cropped image (for which start is 0 and scale is in_length / output size): a triangle, widened by the scale when
// shrinking, that uses only samples in the range.
void make_axis(Axis& axis, double start, double scale, int in0, int in_length, int window, int window_size, bool flip);

// Resamples row by row, so that a source row is used while it is in the cache and need not be stored.
class Resizer {
 public:
  Axis cols, rows;
  // Call this once after the axes are made.
  void begin();
  // Takes the next source row, from pixel cols.lo on, 4 bytes per pixel. Call this rows.hi - rows.lo times.
  void push(const uint8_t* rgbx);
  // Writes rows.size() x cols.size() RGB pixels, `stride` bytes per row.
  void finish(uint8_t* rgb, size_t stride);

 private:
  std::vector<uint8_t> lines_;   // horizontally resampled rows, RGB
  std::vector<uint8_t> out_line_;
  size_t pitch_ = 0;
  int pushed_ = 0;
};

}  // namespace imgtool
