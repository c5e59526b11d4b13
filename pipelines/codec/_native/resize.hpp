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

// Pixels [window, window + window_size) of resizing source range [in0, in0 + in_length) to `out_size`, reversed when
// `flip`. As Pillow on the cropped picture: triangle filter, widened by the scale when shrinking, that does not look
// outside the range. Fills `axis`.
void make_axis(Axis& axis, int in0, int in_length, int out_size, int window, int window_size, bool flip);

// The same for a whole line of `in_length` samples, `scale` of which make one of `out_size`.
void make_axis(Axis& axis, double scale, int in_length, int out_size);

// One row of `n` samples out of `count` lines `pitch` bytes apart, weighted; writes whole blocks of 64, up to 63 more.
void resample_column(const uint8_t* lines, size_t pitch, size_t n, const int32_t* weights, int count, uint8_t* out);

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
