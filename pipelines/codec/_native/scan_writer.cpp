#include "scan_writer.hpp"

#include <algorithm>
#include <cstring>

#include "compressor.hpp"
#include "simd.hpp"

namespace imgtool {
namespace {

constexpr size_t kMaxBlock = 256;      // bytes: 64 symbols of at most 27 bits, and a store of 8 bytes

uint64_t nonzero(const int16_t* block) {
  uint64_t mask = 0;
#if defined(IMGTOOL_SSE2)
  const auto* from = reinterpret_cast<const __m128i*>(block);
  for (int i = 0; i < 4; ++i) {
    const __m128i zeros = _mm_packs_epi16(_mm_cmpeq_epi16(_mm_loadu_si128(from + 2 * i), _mm_setzero_si128()),
                                          _mm_cmpeq_epi16(_mm_loadu_si128(from + 2 * i + 1), _mm_setzero_si128()));
    mask |= static_cast<uint64_t>(static_cast<uint16_t>(~_mm_movemask_epi8(zeros))) << (16 * i);
  }
#elif defined(IMGTOOL_NEON)
  const uint8x8_t bits = vcreate_u8(0x8040201008040201);
  for (int y = 0; y < kSide; ++y) {
    const int16x8_t row = vld1q_s16(block + kSide * y);
    mask |= static_cast<uint64_t>(vaddv_u8(vand_u8(vmovn_u16(vtstq_s16(row, row)), bits))) << (kSide * y);
  }
#else
  for (int k = 0; k < kArea; ++k) mask |= static_cast<uint64_t>(block[k] != 0) << k;
#endif
  return mask;
}

// The size of a value in bits, and the bits that represent it (T.81, F.1.2.1).
inline int size_of(int value) {
  const auto magnitude = static_cast<uint32_t>(value < 0 ? -value : value);
  return magnitude ? 32 - __builtin_clz(magnitude) : 0;
}

inline uint32_t bits_of(int value, int size) { return static_cast<uint32_t>(value + (value >> 31)) & ((1u << size) - 1); }

template <class Code>
inline Code with_value(const Code& code, int value, int size) {
  return {code.bits << size | bits_of(value, size), code.length + static_cast<uint32_t>(size)};
}

// Makes the codes of a table (T.81, annex C).
template <class Code>
void make_codes(const JHUFF_TBL& table, Code* codes) {
  uint32_t code = 0;
  int index = 0;
  for (int length = 1; length <= 16; ++length, code <<= 1)
    for (int i = 0; i < table.bits[length]; ++i, ++index, ++code)
      codes[table.huffval[index]] = {code, static_cast<uint32_t>(length)};
}

// Reorders the bits of a mask from natural to zigzag order, with one lookup per row.
struct ZigzagMask {
  uint64_t of_row[kSide][256] = {};
  ZigzagMask() {
    for (int k = 0; k < kArea; ++k)
      for (int byte = 0; byte < 256; ++byte)
        of_row[kZigzag.place[k] / kSide][byte] |= static_cast<uint64_t>(byte >> kZigzag.place[k] % kSide & 1) << k;
  }
  uint64_t operator()(uint64_t mask) const {
    uint64_t out = 0;
    for (int y = 0; y < kSide; ++y) out |= of_row[y][mask >> (kSide * y) & 255];
    return out;
  }
};
const ZigzagMask kZigzagMask;

}  // namespace

const Baseline& Baseline::of(const Coding& coding) {
  static thread_local Baseline kept;
  const Subsampling subsampling = coding.subsampling;
  if (kept.coding_.quality == coding.quality && kept.coding_.restart == coding.restart &&
      kept.coding_.subsampling.x == subsampling.x && kept.coding_.subsampling.y == subsampling.y)
    return kept;
  kept.coding_.quality = 0;            // invalid, in case of an error
  Compressor c;
  c.create();
  if (setjmp(c.error.jump)) c.fail();
  c.set(16, 16, JCS_YCbCr, coding);
  c.cinfo.raw_data_in = TRUE;
  jpeg_start_compress(&c.cinfo, TRUE);
  for (int k = 0; k < 2; ++k) {
    std::memcpy(kept.steps_[k], c.cinfo.quant_tbl_ptrs[k]->quantval, sizeof kept.steps_[k]);
    make_codes(*c.cinfo.dc_huff_tbl_ptrs[k], kept.dc_[k]);
    make_codes(*c.cinfo.ac_huff_tbl_ptrs[k], kept.ac_[k]);
    for (int run = 0; run < 16; ++run)
      for (int value = -kSmall; value < kSmall; ++value) {
        const int size = size_of(value);
        kept.small_[k][run][value + kSmall] = with_value(kept.ac_[k][run << 4 | size], value, size);
      }
  }
  uint8_t grey[16] = {};
  JSAMPROW rows[16];
  for (JSAMPROW& row : rows) row = grey;
  JSAMPARRAY planes[3] = {rows, rows, rows};
  while (c.cinfo.next_scanline < c.cinfo.image_height)
    jpeg_write_raw_data(&c.cinfo, planes, static_cast<JDIMENSION>(kSide * subsampling.y));
  jpeg_finish_compress(&c.cinfo);
  const std::string file = c.take();
  auto byte = [&file](size_t at) { return static_cast<uint8_t>(file[at]); };
  size_t at = 2;                       // after the start marker
  for (uint8_t marker = 0; marker != 0xDA; at += 2 + (static_cast<size_t>(byte(at + 2)) << 8 | byte(at + 3))) {
    marker = byte(at + 1);
    if (marker == 0xC0) kept.size_at_ = at + 5;        // start of frame: marker, length, precision, height, width
  }
  kept.header_ = file.substr(0, at);
  kept.coding_ = coding;
  return kept;
}

std::string Baseline::header(int width, int height) const {
  std::string out = header_;
  const int sizes[2] = {height, width};
  for (int i = 0; i < 2; ++i) {
    out[size_at_ + 2 * i] = static_cast<char>(sizes[i] >> 8);
    out[size_at_ + 2 * i + 1] = static_cast<char>(sizes[i]);
  }
  return out;
}

void ScanWriter::begin(const Baseline& tables) {
  tables_ = &tables;
  if (bytes_.empty()) bytes_.resize(1 << 16);
  bits_ = {0, 0, bytes_.data()};
  ends_.clear();
  begin_segment();
}

void ScanWriter::begin_segment() {
  for (int& prediction : prediction_) prediction = 0;
  left_ = tables_->coding_.restart;
}

void ScanWriter::end_segment() {
  if (bits_.count) bits_.put((1u << (8 - bits_.count)) - 1, 8 - bits_.count);    // fills the last byte with ones
  ends_.push_back(static_cast<size_t>(bits_.at - bytes_.data()));
}

// Appends bits: at most 57, including those not written yet.
inline void ScanWriter::Bits::put(uint64_t bits, int length) {
  buffer |= bits << (64 - count - length);
  count += length;
  const uint64_t big_endian = __builtin_bswap64(buffer);
  std::memcpy(at, &big_endian, 8);
  at += count >> 3;
  buffer <<= count & ~7;
  count &= 7;
}

inline void ScanWriter::write_block(const int16_t* block, int component) {
  using Code = Baseline::Code;
  Bits bits = bits_;                   // a local copy stays in registers: a store to bytes might alias any member
  const int table = component ? 1 : 0;
  const Code* ac = tables_->ac_[table];
  const auto* small = tables_->small_[table];
  const int difference = block[0] - prediction_[component];
  prediction_[component] = block[0];
  const int size = size_of(difference);
  Code held = with_value(tables_->dc_[table][size], difference, size);
  auto put_held_and = [&bits, &held](const Code& code) {
    bits.put(static_cast<uint64_t>(held.bits) << code.length | code.bits, static_cast<int>(held.length + code.length));
    held = {0, 0};
  };
  int before = 0;
  auto next_code = [&](int k) -> Code {
    const int value = block[kZigzag.place[k]];
    int run = k - before - 1;
    before = k;
    if (__builtin_expect(run > 15, 0))
      for (; run > 15; run -= 16) put_held_and(ac[0xF0]);
    if (__builtin_expect(static_cast<unsigned>(value + Baseline::kSmall) < 2 * Baseline::kSmall, 1))
      return small[run][value + Baseline::kSmall];
    return with_value(ac[run << 4 | size_of(value)], value, size_of(value));
  };
  for (uint64_t mask = kZigzagMask(nonzero(block)) & ~uint64_t{1}; mask; mask &= mask - 1) {
    put_held_and(next_code(__builtin_ctzll(mask)));    // two codes at a time
    mask &= mask - 1;
    if (!mask) break;
    held = next_code(__builtin_ctzll(mask));
  }
  if (before != kArea - 1)
    put_held_and(ac[0]);
  else if (held.length)
    put_held_and({0, 0});
  bits_ = bits;
}

void ScanWriter::write_row(const BlockRow* rows, int mcus, const int* across, const int* down) {
  const size_t used = static_cast<size_t>(bits_.at - bytes_.data());
  const int h = tables_->coding_.subsampling.x, v = tables_->coding_.subsampling.y;
  const size_t needed = used + kMaxBlock * static_cast<size_t>(mcus) * static_cast<size_t>(h * v + 2);
  if (needed > bytes_.size()) {
    bytes_.resize(std::max(needed, 2 * bytes_.size()));
    bits_.at = bytes_.data() + used;
  }
  for (int mcu = 0; mcu < mcus; ++mcu) {
    if (tables_->coding_.restart && left_-- == 0) {
      end_segment();
      begin_segment();
      --left_;
    }
    for (int k = 0; k < 3; ++k) {
      const int width = k ? 1 : h, height = k ? 1 : v;
      for (int y = 0; y < height; ++y)
        for (int x = mcu * width; x < (mcu + 1) * width; ++x) {
          if (x < across[k] && y < down[k]) {
            write_block(rows[k].at(x, y), k);
          } else {
            int16_t plain[kArea] = {};
            plain[0] = static_cast<int16_t>(prediction_[k]);
            write_block(plain, k);
          }
        }
    }
  }
}

void ScanWriter::finish(std::string& out) {
  end_segment();
  out.reserve(out.size() + ends_.back() * 65 / 64 + 2 * ends_.size() + 64);
  const uint8_t* from = bytes_.data();
  for (size_t i = 0; i < ends_.size(); ++i) {
    const uint8_t* const stop = bytes_.data() + ends_[i];
    while (from < stop) {
      const auto* found = static_cast<const uint8_t*>(std::memchr(from, 0xFF, static_cast<size_t>(stop - from)));
      const uint8_t* end = found ? found + 1 : stop;
      out.append(reinterpret_cast<const char*>(from), static_cast<size_t>(end - from));
      if (found) out.push_back('\0');
      from = end;
    }
    out.push_back('\xFF');
    out.push_back(static_cast<char>(i + 1 < ends_.size() ? 0xD0 + i % 8 : 0xD9));    // restart or end marker
  }
  if (bytes_.size() > kKeep) std::vector<uint8_t>().swap(bytes_);
}

}  // namespace imgtool
