// Reads and writes JPEG through libjpeg-turbo: a reusable decoder that yields rows of a region, and an encoder.
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

// Thrown when an image cannot be decoded; what() is a one-line message for users.
struct ImageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Larger images are refused before memory is allocated. (ImageNet's largest has about 61 million pixels.)
constexpr int64_t kMaxPixels = 100'000'000;
// Buffers larger than this many bytes are not kept for the next image.
constexpr size_t kKeep = 64 << 20;
// More scans than any real progressive file has. A file with thousands of scans would take minutes to decode.
constexpr int kMaxScans = 200;
// Scans times pixels: 20 scans of an image of kMaxPixels, which has 10 as libjpeg writes it. A scan costs time for each
// pixel, even if it has only a few bytes.
constexpr int64_t kMaxScannedPixels = 20 * kMaxPixels;

struct Header {
  int width = 0, height = 0, components = 0;
  J_COLOR_SPACE space = JCS_UNKNOWN;
  bool progressive = false;
  int orientation = 1;           // EXIF tag 0x0112, 1..8
  bool arithmetic = false;
  int h_samp = 1, v_samp = 1;    // luma sampling factors: 2, 2 is 4:2:0
  int chroma_h = 1, chroma_v = 1;  // those of both chroma planes; 0 if the planes differ
  bool fractional = false;       // a sampling factor does not divide the largest one: most readers refuse such an image
  bool regular = true;           // false: Huffman tables are missing, and the standard ones are used (Motion-JPEG), or
                                 // the parameters of a sequential scan are not 0, 63, 0, 0, which is harmless
};

struct ErrorState {
  jpeg_error_mgr base;           // must be first: libjpeg passes a pointer to it
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
  bool ended = false;            // the data has ended; libjpeg now reads an end marker of ours
  bool truncated = false;        // the data ended before the image did
  bool damaged = false;          // some entropy-coded data is invalid
  int first_bad_row = -1;        // output row at which one of them was first detected
};

// Returns the orientation in EXIF data: TIFF 6.0 header, IFD0, tag 0x0112. 1 if there is none.
int exif_orientation(const uint8_t* tiff, size_t size);

// Installs libjpeg's error handlers: errors jump to `jump`, warnings set the flags.
void install(ErrorState& state);

// Makes more than kMaxScans scans an error, and more than kMaxScannedPixels. `progress` must outlive the decompressor.
void limit_scans(jpeg_decompress_struct& cinfo, jpeg_progress_mgr& progress);

// Tells whether scans are missing once the decompressor has read all of them: those of a component, or, if the data has
// ended without an end marker, the last bits of a progressive image's coefficients.
bool misses_scans(const jpeg_decompress_struct& cinfo);

// Reads from memory. The end of the data is recorded in the ErrorState, which must be installed.
void set_source(jpeg_decompress_struct& cinfo, const uint8_t* data, size_t size);

// One decoder per thread is reused for all images. Only its buffers are kept: libjpeg's state is created for each image
// (about a microsecond), because its tables would otherwise serve the next image that lacks some.
class Decoder {
 public:
  Decoder() = default;
  ~Decoder() { end(); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // Reads the header. `data` must exist until the last row is read. Throws ImageError.
  const Header& open(const uint8_t* data, size_t size);
  // Starts decoding columns [x, x+w) from row y on, which must be inside the image; the pixels equal a full decode's.
  void begin(int x, int y, int w);
  // Returns the next row: w pixels of 4 bytes (R, G, B, unused), valid until the next call.
  const uint8_t* row();
  // Decodes the whole image to planes (YCbCr or grayscale only), instead of begin() and row().
  void read(Planes& planes);
  // Decodes the whole MCUs that contain columns [x, x+w) of rows [y, y+h), and sets the position of each plane. False
  // if the image is not an undamaged baseline image in YCbCr or grayscale; begin() and row() can read it then.
  bool read_region(int x, int y, int w, int h, Planes& planes);
  // Decodes the coefficients that read_region() needs and discards them, for benchmarks; without storing them if not
  // `store`. False as in read_region().
  bool read_coefficients(int x, int y, int w, int h, bool store = true);
  // The same for the whole image, without storing them. True only if the data is complete and undamaged.
  bool read_whole();
  // Tells whether all data up to the end marker is complete and undamaged. Reads what read_whole() cannot read, or may
  // not because the image is not `plain` (see End). Throws ImageError.
  bool is_whole(bool plain);
  // Encodes the image again in the same size as 4:2:0, without decoding it to samples. Possible for an undamaged
  // baseline scan of 4:4:4 or 4:2:0; otherwise false, and the other functions can read it.
  bool requantise(const Coding& coding, std::string& out);
  // Tells whether scans are missing, after the last row is read: the data ended between two of them.
  bool misses_scans() const;
  // Ends the image; may be called at any time.
  void end() noexcept;

  const ErrorState& state() const { return error_; }

 private:
  [[noreturn]] void fail();
  void describe(Planes& planes) const;
  // The MCUs in columns [left, right) of rows [top, bottom).
  struct Region {
    int left, top, right, bottom;
  };
  bool open_region(int x, int y, int w, int h, Region& region);
  bool read_mcus(const Region& region, Planes& planes);
  bool is_regular() const;
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

// Encodes RGB rows (3 bytes per pixel, `stride` bytes apart) as baseline JPEG. Throws ImageError.
std::string encode(const uint8_t* rgb, int width, int height, size_t stride, const Coding& coding);

// The same from planes with this subsampling. Fills their padding.
std::string encode(Planes& planes, const Coding& coding);

// Rewrites a JPEG as baseline without changing its pixels, for instance a progressive or arithmetic-coded one. Divides
// all sampling factors, which must be multiples. Throws ImageError, also if it is truncated or damaged.
std::string transcode(const uint8_t* data, size_t size, int divide_h, int divide_v);

}  // namespace imgtool
