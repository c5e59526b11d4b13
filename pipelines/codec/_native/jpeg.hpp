// JPEG in and out through libjpeg-turbo: a reusable decoder that yields rows of a region, and an encoder.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include <jpeglib.h>

#include "planes.hpp"
#include "scan_reader.hpp"

namespace imgtool {

// An image that cannot be decoded; what() is one line fit for a user.
struct ImageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Larger images are refused before any memory is taken (ImageNet's largest is about 61 million pixels).
constexpr int64_t kMaxPixels = 100'000'000;
// Buffers of images larger than this many bytes are not kept for the next one.
constexpr size_t kKeep = 64 << 20;
// More scans than any real progressive file has; a file of thousands takes minutes to decode.
constexpr int kMaxScans = 200;

struct Header {
  int width = 0, height = 0, components = 0;
  J_COLOR_SPACE space = JCS_UNKNOWN;
  bool progressive = false;
  int orientation = 1;           // EXIF tag 0x0112, 1..8
  bool arithmetic = false;
  int h_samp = 1, v_samp = 1;    // luma sampling factors: 2, 2 is 4:2:0
  int chroma_h = 1, chroma_v = 1;  // those of both chroma planes, 0 where they differ
};

struct ErrorState {
  jpeg_error_mgr base;           // first: libjpeg hands back a pointer to it
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
  bool ended = false;            // the data has run out; libjpeg reads an end marker of our making
  bool truncated = false;        // it ran out before the image did
  bool damaged = false;          // the entropy-coded data is wrong somewhere
  int first_bad_row = -1;        // output row being decoded when either was first seen
};

// Makes the state libjpeg's handler: errors jump to `jump`, warnings are sorted into the flags.
void install(ErrorState& state);

// Makes more than kMaxScans scans an error. `progress` must live as long as the decompressor.
void limit_scans(jpeg_decompress_struct& cinfo, jpeg_progress_mgr& progress);

// Reads from memory; that the data ran out is noted in the ErrorState, which must be installed.
void set_source(jpeg_decompress_struct& cinfo, const uint8_t* data, size_t size);

// One decoder is reused for many images (one a thread): creating libjpeg's state costs more than a header.
class Decoder {
 public:
  Decoder();
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // Reads the header. `data` must outlive the rows. Throws ImageError.
  const Header& open(const uint8_t* data, size_t size);
  // Starts decoding columns [x, x+w) of rows [y, y+h); the pixels equal a full decode's.
  void begin(int x, int y, int w, int h);
  // The next row, w pixels of 4 bytes (R, G, B, unused), valid until the next call.
  const uint8_t* row();
  // Decodes the whole image as its planes (YCbCr or grayscale only), instead of begin() and row().
  void read(Planes& planes);
  // Decodes what the samples of columns [x, x+w) of rows [y, y+h) need, whole MCUs, each plane with its place. False if
  // it is not a sound baseline image of YCbCr or grayscale, and can be read by begin() and row().
  bool read_region(int x, int y, int w, int h, Planes& planes);
  // Decodes the coefficients that read_region() needs and drops them: for measuring. False as there.
  bool read_coefficients(int x, int y, int w, int h);
  // Codes it anew in its own size, 4:2:0, where that can be done without decoding it to samples: a sound
  // baseline scan of 4:4:4 or 4:2:0. Otherwise false, and it can be read in the other ways.
  bool requantise(const Coding& coding, std::string& out);
  // Ends the image early or late; safe to call at any time.
  void end() noexcept;

  const ErrorState& state() const { return error_; }

 private:
  [[noreturn]] void fail();
  void describe(Planes& planes) const;
  // MCUs: columns [left, right) of rows [top, bottom).
  struct Region {
    int left, top, right, bottom;
  };
  bool open_region(int x, int y, int w, int h, Region& region);
  bool read_mcus(const Region& region, Planes& planes);
  bool steps_of(int component, Steps& steps) const;
  jpeg_decompress_struct cinfo_{};
  ErrorState error_{};
  jpeg_progress_mgr progress_{};
  ScanReader reader_;
  ScanReader::Span span_;
  BlockRow rows_[3];
  Header header_;
  std::vector<uint8_t> line_;
  size_t skip_bytes_ = 0;
  int width_ = 0;
};

// Encodes RGB rows (3 bytes a pixel, `stride` bytes apart) as baseline JPEG. Throws ImageError.
std::string encode(const uint8_t* rgb, int width, int height, size_t stride, const Coding& coding);

// The same from planes of that subsampling, whose padding is filled here.
std::string encode(Planes& planes, const Coding& coding);

// Rewrites a JPEG as baseline without decoding its pixels, which stay the same: a progressive or arithmetic-coded one,
// or one with larger sampling factors than it needs. Throws ImageError; a truncated or damaged one is an error here.
std::string transcode(const uint8_t* data, size_t size);

}  // namespace imgtool
