// Huffman coding of baseline JPEG scans (ITU-T T.81, annex F.1) with the standard's typical tables, byte for byte what
// libjpeg writes. Bits are laid down without branches, the zeros behind 0xFF stuffed in a pass of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dct.hpp"
#include "planes.hpp"
#include "scan_reader.hpp"

namespace imgtool {

// What all baseline images of one coding share: everything in front of the scan, the tables in it.
class Baseline {
 public:
  // Made once a thread and kept. Throws ImageError.
  static const Baseline& of(const Coding& coding);

  // The markers in front of a scan of width x height.
  std::string header(int width, int height) const;
  // Quantiser steps of luma (0) or chroma (1, 2), natural order.
  const uint16_t* steps(int component) const { return steps_[component ? 1 : 0]; }

 private:
  friend class ScanWriter;
  // A code with a value's bits behind it, at most 27, and how many they are.
  struct Code {
    uint32_t bits : 27, length : 5;
  };
  static constexpr int kSmall = 32;    // values in [-kSmall, kSmall) have entries of their own
  Coding coding_{0, {}, 0};
  std::string header_;
  size_t size_at_ = 0;                 // where the header has height and width
  uint16_t steps_[2][kArea];
  Code dc_[2][256], ac_[2][256];       // by symbol, without a value
  Code small_[2][16][2 * kSmall];      // by run and value
};

class ScanWriter {
 public:
  void begin(const Baseline& tables);
  // The next row of MCUs. Component k has blocks in across[k] columns and down[k] rows of it; where an MCU goes beyond
  // them, blocks without detail are written, as libjpeg does.
  void write_row(const BlockRow* rows, int mcus, const int* across, const int* down);
  // Appends the scan and the end marker.
  void finish(std::string& out);

 private:
  struct Bits {
    uint64_t buffer = 0;               // its top `count` bits, fewer than 8, are those not yet written
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
  std::vector<size_t> ends_;           // of the segments, in bytes_
};

}  // namespace imgtool
