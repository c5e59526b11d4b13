// Huffman decoding of baseline JPEG scans (ITU-T T.81, annex F.2), faster than libjpeg's. The stuffed bytes are removed
// first, so that a refill is one load. One lookup gives up to two coefficients with their runs and bits, and few
// branches depend on the data. libjpeg reads the header. Whatever is unusual is left to libjpeg: if this decoder gives
// up, libjpeg decodes the image from the start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

#include <jpeglib.h>

#include "dct.hpp"

namespace imgtool {

// The blocks of one component in a row of MCUs, `stride` blocks per row of blocks, and for each block the zigzag index
// of the last coefficient that can differ from 0.
struct BlockRow {
  std::vector<int16_t> blocks;
  std::vector<uint8_t> last;
  int stride = 0;

  void resize(int width, int height);
  int16_t* at(int x, int y) { return &blocks[kArea * (static_cast<size_t>(y) * stride + x)]; }
  const int16_t* at(int x, int y) const { return &blocks[kArea * (static_cast<size_t>(y) * stride + x)]; }
  uint8_t& last_at(int x, int y) { return last[static_cast<size_t>(y) * stride + x]; }
  uint8_t last_at(int x, int y) const { return last[static_cast<size_t>(y) * stride + x]; }
};

class ScanReader {
  struct Table;
  // The destination of a block, and the tables to decode it with.
  struct Spot {
    const Table *dc, *ac;
    int* prediction;
    int16_t* block;
    uint8_t* last;
  };

 public:
  // MCUs [begin, end) of a row, and the destinations of their blocks.
  struct Span {
    int begin = 0, end = 0;
    BlockRow* rows = nullptr;
    std::vector<Spot> spots;
  };

  // Prepares to read the scan after the header that libjpeg has just read. False if it must be left to libjpeg: it is
  // not baseline, has several scans or not 8 bits, or damage is found at once.
  bool open(const jpeg_decompress_struct& cinfo);

  int mcus_x() const { return mcus_x_; }
  int mcus_y() const { return mcus_y_; }
  int components() const { return count_; }
  // The number of blocks of component k in an MCU.
  int h(int k) const { return parts_[k].h; }
  int v(int k) const { return parts_[k].v; }

  // Makes `rows`, one per component, the destination of MCUs [begin, end) of any row. Without rows, coefficients are
  // decoded but not stored.
  void assign(Span& span, int begin, int end, BlockRow* rows);
  // Decodes these MCUs of row y, and of the data before them only what they depend on. Rows must be read in ascending
  // order. False if the data is damaged or ends.
  bool read_row(int y, const Span& span);

 private:
  static constexpr int kLookup = 10;
  // A symbol: the length of its code, and the size of its value in bits. Length 0: the code is longer than the lookup.
  struct Symbol {
    uint8_t length = 0, size = 0, advance = 0;
  };
  // The start of the looked-up bits: a symbol with its value, and the next one if the bits contain all of it. Otherwise
  // the first one is repeated, so that storing both is harmless. If the first symbol has more bits, `bits` is 0 and
  // `second` is the size of its value.
  struct Entry {
    uint8_t bits = 0, advance = 0;               // of both symbols
    uint8_t first_bits = 0, first_advance = 0;   // of the first one; bits 0: not even its code fits
    int16_t first = 0, second = 0;               // values
  };
  struct Table {
    uint8_t key[16 + 256] = {};    // the counts and symbols that it was made from
    bool valid = false;
    uint32_t limit[17];            // codes of this length, shifted to 16 bits, are below it
    int offset[17];                // a symbol's index is its code + offset[its length]
    Entry entries[1 << kLookup];

    bool make(const JHUFF_TBL& from, bool dc);
    bool make_symbols(bool dc, Symbol* symbols);
  };
  struct Part {
    int h, v, dc, ac, prediction;
  };
  struct Bits {
    uint64_t buffer;               // the next bit is the highest
    int count;
    const uint8_t* at;
    void refill();
    void take(int n);
    uint32_t peek() const { return static_cast<uint32_t>(buffer >> (64 - kLookup)); }
  };

  static Symbol symbol_of(uint8_t code, int length, bool dc);
  static int value_of(uint64_t buffer, int length, int size);
  static Symbol long_symbol(const Bits& bits, const Table& table, bool dc);
  static Symbol large_symbol(const Bits& bits, const Entry& entry, const Table& table, bool dc);
  bool find_segments(size_t count);
  bool begin_segment(int64_t segment);
  bool segment_holds() const;
  bool skip_to(int64_t mcu);
  template <bool kStore>
  bool read_blocks(const Spot* at, const Spot* stop);

  Table dc_[4], ac_[4];
  Part parts_[4];
  Span skipped_;                       // one MCU, for MCUs whose coefficients are not needed
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  std::vector<size_t> begins_, ends_;  // positions in data_ of the segments between restart markers
  std::vector<uint8_t> bytes_;         // the current segment without stuffing
  size_t length_ = 0;
  Bits bits_{};
  int count_ = 0, mcus_x_ = 0, mcus_y_ = 0, blocks_ = 0;  // blocks_: per MCU
  int64_t interval_ = 0, segment_ = 0, next_ = 0;      // in MCUs; current segment; next MCU
};

}  // namespace imgtool
