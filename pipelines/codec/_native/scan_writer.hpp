// Huffman coding of baseline JPEG scans (ITU-T T.81, annex F.1) with the standard's typical tables; the bytes equal
// libjpeg's. Bits are written without branches; a separate pass stuffs the zeros after 0xFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dct.hpp"
#include "planes.hpp"
#include "scan_reader.hpp"

namespace imgtool {

// The data that all baseline images of one coding share: everything before the scan, and the tables.
class Baseline {
 public:
  // Made once per thread and coding. Throws ImageError.
  static const Baseline& of(const Coding& coding);

  // Returns the markers before the scan of an image of width x height.
  std::string header(int width, int height) const;
  // The quantiser steps of luma (0) or chroma (1, 2) in natural order.
  const uint16_t* steps(int component) const { return steps_[component ? 1 : 0]; }

 private:
  friend class ScanWriter;
  // A code followed by the bits of a value, at most 27 bits, and their number.
  struct Code {
    uint32_t bits : 27, length : 5;
  };
  static constexpr int kSmall = 32;    // values in [-kSmall, kSmall) have precomputed codes
  Coding coding_{0, {}, 0};
  std::string header_;
  size_t size_at_ = 0;                 // position of height and width in the header
  uint16_t steps_[2][kArea];
  Code dc_[2][256], ac_[2][256];       // by symbol, without a value
  Code small_[2][16][2 * kSmall];      // by run and value
};

class ScanWriter {
 public:
  void begin(const Baseline& tables);
  // Writes the next row of MCUs. Component k has across[k] x down[k] blocks in it. Where an MCU extends beyond them,
  // flat blocks are written, as libjpeg does.
  void write_row(const BlockRow* rows, int mcus, const int* across, const int* down);
  // Appends the scan and the end marker.
  void finish(std::string& out);

 private:
  struct Bits {
    uint64_t buffer = 0;               // the top `count` bits, fewer than 8, are not written yet
    int count = 0;
    uint8_t* at = nullptr;
    void put(uint64_t bits, int length);
  };
  void begin_segment();
  void end_segment();
  void write_block(const int16_t* block, int component);

  const Baseline* tables_ = nullptr;
  std::vector<uint8_t> bytes_;
  Bits bits_;
  int prediction_[3] = {}, left_ = 0;  // left_: MCUs until the next restart marker
  std::vector<size_t> ends_;           // ends of the segments in bytes_
};

}  // namespace imgtool
