#include "scan_reader.hpp"

#include <algorithm>
#include <cstring>

namespace imgtool {
namespace {

// What may be read beyond a segment before its end is checked: an MCU is at most 10 blocks of 64 symbols of 27 bits.
constexpr size_t kPadding = 2304;
// Above 8 bits a sample there are larger ones. Two symbols with their bits fit into one refill of 56 bits.
constexpr int kMaxDcSize = 11, kMaxAcSize = 10;
constexpr int kLast = kArea - 1;
constexpr int kEndOfBlock = 128;       // an advance that leaves the block, and cannot come of a run

// T.81, figure F.12.
inline int extend(uint32_t bits, int size) {
  return static_cast<int>(bits) - (bits >> (size - 1) ? 0 : (1 << size) - 1);
}

}  // namespace

void BlockRow::resize(int width, int height) {
  stride = width;
  const size_t count = static_cast<size_t>(width) * height;
  if (last.size() < count) {
    last.resize(count);
    blocks.resize(kArea * count);
  }
}

// At least 56 bits are in the buffer afterwards.
inline void ScanReader::Bits::refill() {
  uint64_t next;
  std::memcpy(&next, at, 8);
  buffer |= __builtin_bswap64(next) >> count;
  at += (63 - count) >> 3;
  count |= 56;
}

inline void ScanReader::Bits::take(int n) {
  buffer <<= n;
  count -= n;
}

ScanReader::Symbol ScanReader::symbol_of(uint8_t code, int length, bool dc) {
  const int size = dc ? code : code & 15, run = dc ? 0 : code >> 4;
  const int advance = size || dc ? run + 1 : run == 15 ? 16 : kEndOfBlock;
  return {static_cast<uint8_t>(length), static_cast<uint8_t>(advance), 0, static_cast<uint8_t>(size)};
}

// Fills the lookup tables, `pairs` for AC alone, unless they are filled already: most files have the same tables.
bool ScanReader::make(Table& table, const JHUFF_TBL& from, bool dc, Pair* pairs) {
  int total = 0;
  for (int length = 1; length <= 16; ++length) total += from.bits[length];
  if (total > 256) return false;
  uint8_t key[16 + 256] = {};
  std::memcpy(key, from.bits + 1, 16);
  std::memcpy(key + 16, from.huffval, static_cast<size_t>(total));
  if (std::memcmp(key, table.key, sizeof key) == 0) return table.valid;
  std::memcpy(table.key, key, sizeof key);
  table.valid = false;
  std::fill(table.single, table.single + (1 << kLookup), Symbol());
  uint32_t code = 0;
  int index = 0;
  for (int length = 1; length <= 16; ++length, code <<= 1) {
    table.offset[length] = index - static_cast<int>(code);
    for (int i = 0; i < key[length - 1]; ++i, ++index, ++code) {
      const uint8_t value = key[16 + index];
      if (code >= 1u << length) return false;
      if (dc ? value > kMaxDcSize : (value & 15) > kMaxAcSize || (value % 16 == 0 && value && value != 0xF0)) return false;
      if (length > kLookup) continue;
      const int rest = kLookup - length;
      for (uint32_t tail = 0; tail < 1u << rest; ++tail) {
        Symbol s = symbol_of(value, length, dc);
        if (s.size && s.size <= rest) {
          s.value = static_cast<int16_t>(extend(tail >> (rest - s.size), s.size));
          s.bits = static_cast<uint8_t>(s.bits + s.size);
          s.size = 0;
        }
        table.single[(code << rest) + tail] = s;
      }
    }
    table.limit[length] = code << (16 - length);
  }
  for (uint32_t i = 0; pairs && i < 1u << kLookup; ++i) {
    const Symbol a = table.single[i];
    pairs[i] = Pair();
    if (!a.bits || a.size) continue;
    const Symbol b = table.single[i << a.bits & ((1u << kLookup) - 1)];
    const bool both = a.advance != kEndOfBlock && b.bits && !b.size && a.bits + b.bits <= kLookup;
    pairs[i] = {static_cast<uint8_t>(a.bits + (both ? b.bits : 0)), static_cast<uint8_t>(a.advance + (both ? b.advance : 0)),
                a.bits, a.advance, both ? b.value : a.value, a.value};
  }
  return table.valid = true;
}

bool ScanReader::open(const jpeg_decompress_struct& cinfo) {
  count_ = cinfo.comps_in_scan;
  if (cinfo.progressive_mode || cinfo.arith_code || cinfo.data_precision != 8 || count_ != cinfo.num_components ||
      (count_ != 1 && count_ != 3))
    return false;
  int max_h = 1, max_v = 1, blocks = 0;
  for (int k = 0; k < count_; ++k) {
    const jpeg_component_info& c = cinfo.comp_info[k];
    if (cinfo.cur_comp_info[k] != &c) return false;
    // The table numbers are as the file says; libjpeg has not checked them yet.
    if (c.dc_tbl_no < 0 || c.dc_tbl_no >= NUM_HUFF_TBLS || c.ac_tbl_no < 0 || c.ac_tbl_no >= NUM_HUFF_TBLS) return false;
    const JHUFF_TBL *dc = cinfo.dc_huff_tbl_ptrs[c.dc_tbl_no], *ac = cinfo.ac_huff_tbl_ptrs[c.ac_tbl_no];
    if (!dc || !ac || !make(dc_[c.dc_tbl_no], *dc, true, nullptr) ||
        !make(ac_[c.ac_tbl_no], *ac, false, pairs_[c.ac_tbl_no]))
      return false;
    const bool alone = count_ == 1;    // then its blocks are not interleaved, whatever its factors
    parts_[k] = {alone ? 1 : c.h_samp_factor, alone ? 1 : c.v_samp_factor, c.dc_tbl_no, c.ac_tbl_no, 0};
    max_h = std::max(max_h, parts_[k].h);
    max_v = std::max(max_v, parts_[k].v);
    blocks += parts_[k].h * parts_[k].v;
  }
  if (blocks > 10) return false;
  mcus_x_ = (static_cast<int>(cinfo.image_width) + kSide * max_h - 1) / (kSide * max_h);
  mcus_y_ = (static_cast<int>(cinfo.image_height) + kSide * max_v - 1) / (kSide * max_v);
  const int64_t mcus = static_cast<int64_t>(mcus_x_) * mcus_y_;
  interval_ = cinfo.restart_interval ? cinfo.restart_interval : mcus;
  data_ = cinfo.src->next_input_byte;
  size_ = cinfo.src->bytes_in_buffer;
  return find_segments(static_cast<size_t>((mcus + interval_ - 1) / interval_)) && begin_segment(0);
}

bool ScanReader::find_segments(size_t count) {
  begins_.assign(1, 0);
  ends_.clear();
  if (count == 1) {                    // ends at a marker, which taking out the stuffing finds
    ends_.push_back(size_);
    return true;
  }
  for (size_t at = 0;;) {
    const void* found = at < size_ ? std::memchr(data_ + at, 0xFF, size_ - at) : nullptr;
    if (!found) break;
    at = static_cast<size_t>(static_cast<const uint8_t*>(found) - data_);
    const size_t end = at;
    while (at < size_ && data_[at] == 0xFF) ++at;      // fill bytes
    if (at < size_ && data_[at++] == 0) continue;
    ends_.push_back(end);
    if (at > size_ || data_[at - 1] != 0xD0 + (begins_.size() - 1) % 8) break;
    begins_.push_back(at);
  }
  if (ends_.size() < begins_.size()) ends_.push_back(size_);
  return ends_.size() == count;
}

// Copies the segment's bytes without the zeros stuffed behind 0xFF.
bool ScanReader::begin_segment(int64_t segment) {
  const auto s = static_cast<size_t>(segment);
  if (s >= begins_.size()) return false;
  const uint8_t *from = data_ + begins_[s], *const stop = data_ + ends_[s];
  const size_t size = static_cast<size_t>(stop - from);
  if (bytes_.size() < size + kPadding) bytes_.resize(size + kPadding);
  uint8_t* to = bytes_.data();
  while (from < stop) {
    const auto* found = static_cast<const uint8_t*>(std::memchr(from, 0xFF, static_cast<size_t>(stop - from)));
    const size_t run = static_cast<size_t>((found ? found : stop) - from);
    std::memcpy(to, from, run);
    to += run;
    if (!found) break;
    from = found + 1;
    while (from < stop && *from == 0xFF) ++from;
    if (from == stop || *from++ != 0) break;           // a marker
    *to++ = 0xFF;
  }
  length_ = static_cast<size_t>(to - bytes_.data());
  bits_ = {0, 0, bytes_.data()};
  for (int k = 0; k < count_; ++k) parts_[k].prediction = 0;
  segment_ = segment;
  next_ = segment * interval_;
  return true;
}

// Whether no more bits have been taken than the segment has.
bool ScanReader::segment_holds() const {
  return 8 * (bits_.at - bytes_.data()) - bits_.count <= 8 * static_cast<int64_t>(length_);
}

// By the limits of each length (T.81, figure F.16); bits 0 if there is no such code.
__attribute__((noinline)) ScanReader::Symbol ScanReader::long_symbol(const Bits& bits, const Table& table, bool dc) {
  const auto top = static_cast<uint32_t>(bits.buffer >> 48);
  for (int length = kLookup + 1; length <= 16; ++length)
    if (top < table.limit[length])
      return symbol_of(table.key[16 + ((static_cast<int>(top >> (16 - length)) + table.offset[length]) & 255)], length, dc);
  return {};
}

// Takes a symbol's bits and gives its value.
inline int ScanReader::take(Bits& bits, const Symbol& symbol) {
  bits.take(symbol.bits);
  if (!symbol.size) return symbol.value;
  const int value = extend(static_cast<uint32_t>(bits.buffer >> (64 - symbol.size)), symbol.size);
  bits.take(symbol.size);
  return value;
}

template <bool kStore>
inline __attribute__((always_inline)) bool ScanReader::read_block(Part& part, int16_t* block, uint8_t* last) {
  Bits bits = bits_;
  bits.refill();
  Symbol s = dc_[part.dc].single[bits.peek()];
  if (__builtin_expect(!s.bits, 0) && !(s = long_symbol(bits, dc_[part.dc], true)).bits) return false;
  part.prediction += take(bits, s);
  if (kStore) {
    using Line = int16_t __attribute__((vector_size(16)));
    for (int i = 0; i < kArea; i += kSide) {
      const Line zero = {};
      std::memcpy(block + i, &zero, sizeof zero);
    }
    block[0] = static_cast<int16_t>(part.prediction);
  }
  const Pair* pairs = pairs_[part.ac];
  int k = 0, next;                     // the index of the last coefficient, and of the one to come
  for (;;) {
    bits.refill();
    for (int i = 0; i < 3; ++i) {      // what fits into a refill: pairs, and at last a symbol larger than the lookup
      const Pair p = pairs[bits.peek()];
      next = k + p.advance;
      if (__builtin_expect(next >= kLast, 0)) {
        int end = k;
        next = k + p.first_advance;
        if (p.advance > kEndOfBlock && next < kLast) {     // a coefficient and the end of the block
          bits.take(p.bits);
          end = next;
          next = kEndOfBlock;
        } else {
          bits.take(p.first_bits);
        }
        if (kStore) {
          block[kZigzag.place[k + p.first_advance]] = p.first_value;
          *last = static_cast<uint8_t>(next < kEndOfBlock ? kLast : end);
        }
        if (next < kLast) {
          k = next;
          break;
        }
        bits_ = bits;
        return next == kLast || next >= kEndOfBlock;
      }
      if (__builtin_expect(!p.bits, 0)) {
        s = ac_[part.ac].single[bits.peek()];
        if (!s.bits && !(s = long_symbol(bits, ac_[part.ac], false)).bits) return false;
        const int value = take(bits, s);
        next = k + s.advance;
        if (kStore) block[kZigzag.place[next]] = static_cast<int16_t>(value);
        if (next >= kLast) {
          if (kStore) *last = static_cast<uint8_t>(next < kEndOfBlock ? kLast : k);
          bits_ = bits;
          return next == kLast || next >= kEndOfBlock;
        }
        k = next;
        break;
      }
      bits.take(p.bits);
      if (kStore) {
        block[kZigzag.place[k + p.first_advance]] = p.first_value;
        block[kZigzag.place[next]] = p.value;
      }
      k = next;
    }
  }
}

// To the MCU's segment, and in it over the MCUs before.
bool ScanReader::skip_to(int64_t mcu) {
  if (mcu / interval_ != segment_ && !(segment_holds() && begin_segment(mcu / interval_))) return false;
  for (; next_ < mcu; ++next_) {
    for (int k = 0; k < count_; ++k)
      for (int i = 0; i < parts_[k].h * parts_[k].v; ++i)
        if (!read_block<false>(parts_[k], nullptr, nullptr)) return false;
    if (bits_.at > bytes_.data() + length_ + 8) return false;
  }
  return true;
}

bool ScanReader::read_row(int y, int begin, int end, BlockRow* rows) {
  const int64_t row = static_cast<int64_t>(y) * mcus_x_;
  for (int x = begin; x < end; ++x) {
    if (!skip_to(row + x)) return false;
    for (int k = 0; k < count_; ++k) {
      Part& part = parts_[k];
      for (int j = 0; j < part.v; ++j)
        for (int i = 0; i < part.h; ++i) {
          const int column = (x - begin) * part.h + i;
          if (!read_block<true>(part, rows[k].at(column, j), &rows[k].last_at(column, j))) return false;
        }
    }
    ++next_;
    if (bits_.at > bytes_.data() + length_ + 8) return false;
  }
  return segment_holds();
}

}  // namespace imgtool
