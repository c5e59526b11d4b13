// Huffman decoding of baseline JPEG scans (ITU-T T.81, annex F.2), faster than libjpeg's: the stuffed bytes are taken
// out first, so that a refill is one load, and one lookup gives up to two coefficients with their runs and bits.
// libjpeg reads the header and stays the judge of everything unusual: where this gives up, it decodes again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

#include <jpeglib.h>

#include "dct.hpp"

namespace imgtool {

// The blocks of a row of MCUs, one component, `stride` in a row, and of each block the zigzag index of the last coefficient
// that can differ from 0.
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
 public:
  // Prepares for the scan behind the header that libjpeg has just read. False if it has to be left to libjpeg: another
  // process than baseline, several scans, not 8 bits, or damage that shows at once.
  bool open(const jpeg_decompress_struct& cinfo);

  int mcus_x() const { return mcus_x_; }
  int mcus_y() const { return mcus_y_; }
  int components() const { return count_; }
  // Blocks that an MCU has of component k.
  int h(int k) const { return parts_[k].h; }
  int v(int k) const { return parts_[k].v; }

  // Decodes MCUs [begin, end) of row y into `rows`, from their first column on; of what lies before them only what they
  // depend on. Rows come in rising order. False if the data is damaged or ends.
  bool read_row(int y, int begin, int end, BlockRow* rows);

 private:
  static constexpr int kLookup = 10;
  // One symbol. Its value stands in it if its bits lie in the looked-up ones too; else `size` of them are to be taken.
  struct Symbol {
    uint8_t bits = 0, advance = 0; // bits 0: the code is longer than the lookup
    int16_t value = 0;
    uint8_t size = 0;
  };
  // Two symbols in the looked-up bits, or one that stands twice, so that storing both does no harm.
  struct Pair {
    uint8_t bits = 0, advance = 0; // of both; bits 0: there is not even one with its value
    uint8_t first_bits = 0, first_advance = 0;
    int16_t value = 0, first_value = 0;
  };
  struct Table {
    uint8_t key[16 + 256] = {};    // the counts and symbols that it was made of
    bool valid = false;
    Symbol single[1 << kLookup];
    uint32_t limit[17];            // codes of this length, shifted to 16 bits, lie below it
    int offset[17];                // a symbol's index is its code + offset[its length]
  };
  struct Part {
    int h, v, dc, ac, prediction;
  };
  struct Bits {
    uint64_t buffer;               // the next bit on top
    int count;
    const uint8_t* at;
    void refill();
    void take(int n);
    uint32_t peek() const { return static_cast<uint32_t>(buffer >> (64 - kLookup)); }
  };

  static Symbol symbol_of(uint8_t code, int length, bool dc);
  static bool make(Table& table, const JHUFF_TBL& from, bool dc, Pair* pairs);
  static Symbol long_symbol(const Bits& bits, const Table& table, bool dc);
  static int take(Bits& bits, const Symbol& symbol);
  bool find_segments(size_t count);
  bool begin_segment(int64_t segment);
  bool segment_holds() const;
  bool skip_to(int64_t mcu);
  template <bool kStore>
  bool read_block(Part& part, int16_t* block, uint8_t* last);

  Table dc_[4], ac_[4];
  Pair pairs_[4][1 << kLookup];
  Part parts_[4];
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  std::vector<size_t> begins_, ends_;  // of the segments between restart markers, in data_
  std::vector<uint8_t> bytes_;         // the current segment without stuffing
  size_t length_ = 0;
  Bits bits_{};
  int count_ = 0, mcus_x_ = 0, mcus_y_ = 0;
  int64_t interval_ = 0, segment_ = 0, next_ = 0;      // in MCUs; which segment; the MCU to come
};

}  // namespace imgtool
