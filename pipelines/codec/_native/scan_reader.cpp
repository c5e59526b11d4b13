#include "scan_reader.hpp"

#include <algorithm>
#include <cstring>

namespace imgtool {
namespace {

// Bytes that may be read beyond a segment before its end is checked: a block has at most 64 symbols of 27 bits.
constexpr size_t kPadding = 256;
// The maxima for 8 bits per sample.
constexpr int kMaxDcSize = 11, kMaxAcSize = 10;
constexpr int kLast = kArea - 1;
// Advances that do not occur as runs: that of the end-of-block symbol, which is added to that of a symbol before it,
// and that of a symbol with more bits than the lookup. Both lead out of the block, whatever k is.
constexpr int kEndOfBlock = 128, kLarger = 64;

}  // namespace

void BlockRow::resize(int width, int height) {
  stride = width;
  const size_t count = static_cast<size_t>(width) * height;
  if (last.size() < count) {
    last.resize(count);
    blocks.resize(kArea * count);
  }
}

// Afterwards, the buffer has at least 56 bits.
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
  return {static_cast<uint8_t>(length), static_cast<uint8_t>(size), static_cast<uint8_t>(advance)};
}

// Returns the value of `size` bits after a code of `length` bits at the top of the buffer (T.81, figure F.12), without
// branches.
inline int ScanReader::value_of(uint64_t buffer, int length, int size) {
  const uint64_t bits = buffer << length;
  const auto negative = static_cast<int64_t>(~bits) >> 63;
  return static_cast<int>((bits >> 1) >> (63 - size)) - static_cast<int>(negative & ((1 << size) - 1));
}

// Finds the first symbol of each lookup.
bool ScanReader::Table::make_symbols(bool dc, Symbol* symbols) {
  uint32_t code = 0;
  int index = 0;
  for (int length = 1; length <= 16; ++length, code <<= 1) {
    offset[length] = index - static_cast<int>(code);
    for (int i = 0; i < key[length - 1]; ++i, ++index, ++code) {
      const uint8_t value = key[16 + index];
      if (code + 1 >= 1u << length) return false;      // no code is all ones, as libjpeg requires too
      if (dc ? value > kMaxDcSize : (value & 15) > kMaxAcSize || (value % 16 == 0 && value && value != 0xF0)) return false;
      if (length > kLookup) continue;
      const int rest = kLookup - length;
      std::fill_n(symbols + (code << rest), 1 << rest, symbol_of(value, length, dc));
    }
    limit[length] = code << (16 - length);
  }
  return true;
}

// Fills the lookup, unless it was already made from the same table, as for most files.
bool ScanReader::Table::make(const JHUFF_TBL& from, bool dc) {
  int total = 0;
  for (int length = 1; length <= 16; ++length) total += from.bits[length];
  if (total > 256) return false;
  uint8_t new_key[16 + 256] = {};
  std::memcpy(new_key, from.bits + 1, 16);
  std::memcpy(new_key + 16, from.huffval, static_cast<size_t>(total));
  if (std::memcmp(new_key, key, sizeof key) == 0) return valid;
  std::memcpy(key, new_key, sizeof key);
  Symbol symbols[1 << kLookup];
  valid = make_symbols(dc, symbols);
  for (uint32_t i = 0; i < 1u << kLookup; ++i) {
    const Symbol a = symbols[i];
    const int used = a.length + a.size;
    Entry& e = entries[i];
    if (!a.length || used > kLookup) {
      e = {0, kLarger, a.length, a.advance, 0, a.size};
      continue;
    }
    auto bits_after = [i](int n) { return static_cast<uint64_t>(i) << (64 - kLookup + n); };
    const auto value = static_cast<int16_t>(value_of(bits_after(0), a.length, a.size));
    e = {static_cast<uint8_t>(used), a.advance, static_cast<uint8_t>(used), a.advance, value, value};
    if (dc || a.advance == kEndOfBlock || used == kLookup) continue;
    const Symbol b = symbols[i << used & ((1u << kLookup) - 1)];
    if (!b.length || used + b.length + b.size > kLookup) continue;
    e.bits = static_cast<uint8_t>(used + b.length + b.size);
    e.advance = static_cast<uint8_t>(a.advance + b.advance);
    e.second = static_cast<int16_t>(value_of(bits_after(used), b.length, b.size));
  }
  return valid;
}

bool ScanReader::open(const jpeg_decompress_struct& cinfo) {
  count_ = cinfo.comps_in_scan;
  if (cinfo.progressive_mode || cinfo.arith_code || cinfo.data_precision != 8 || count_ != cinfo.num_components ||
      (count_ != 1 && count_ != 3))
    return false;
  int max_h = 1, max_v = 1;
  blocks_ = 0;
  for (int k = 0; k < count_; ++k) {
    const jpeg_component_info& c = cinfo.comp_info[k];
    if (cinfo.cur_comp_info[k] != &c) return false;
    // The table numbers are from the file; libjpeg has not checked them yet.
    if (c.dc_tbl_no < 0 || c.dc_tbl_no >= NUM_HUFF_TBLS || c.ac_tbl_no < 0 || c.ac_tbl_no >= NUM_HUFF_TBLS) return false;
    const JHUFF_TBL *dc = cinfo.dc_huff_tbl_ptrs[c.dc_tbl_no], *ac = cinfo.ac_huff_tbl_ptrs[c.ac_tbl_no];
    if (!dc || !ac || !dc_[c.dc_tbl_no].make(*dc, true) || !ac_[c.ac_tbl_no].make(*ac, false)) return false;
    const bool alone = count_ == 1;    // then its blocks are not interleaved, whatever its sampling factors
    parts_[k] = {alone ? 1 : c.h_samp_factor, alone ? 1 : c.v_samp_factor, c.dc_tbl_no, c.ac_tbl_no, 0};
    max_h = std::max(max_h, parts_[k].h);
    max_v = std::max(max_v, parts_[k].v);
    blocks_ += parts_[k].h * parts_[k].v;
  }
  if (blocks_ > 10) return false;
  assign(skipped_, 0, 1, nullptr);
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
  if (count == 1) {                    // ends at a marker, which begin_segment() finds
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

// Copies the bytes of a segment without the zeros stuffed after 0xFF.
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

// Tells whether no more bits were used than the segment has.
bool ScanReader::segment_holds() const {
  return 8 * (bits_.at - bytes_.data()) - bits_.count <= 8 * static_cast<int64_t>(length_);
}

// Decodes a long code by the limits of each length (T.81, figure F.16); length 0 if there is no such code.
__attribute__((noinline)) ScanReader::Symbol ScanReader::long_symbol(const Bits& bits, const Table& table, bool dc) {
  const auto top = static_cast<uint32_t>(bits.buffer >> 48);
  for (int length = kLookup + 1; length <= 16; ++length)
    if (top < table.limit[length])
      return symbol_of(table.key[16 + ((static_cast<int>(top >> (16 - length)) + table.offset[length]) & 255)], length, dc);
  return {};
}

// Returns the first symbol of an entry that does not contain all of its bits.
inline ScanReader::Symbol ScanReader::large_symbol(const Bits& bits, const Entry& entry, const Table& table, bool dc) {
  if (!entry.first_bits) return long_symbol(bits, table, dc);
  return {entry.first_bits, static_cast<uint8_t>(entry.second), entry.first_advance};
}

void ScanReader::assign(Span& span, int begin, int end, BlockRow* rows) {
  span.begin = begin;
  span.end = end;
  span.rows = rows;
  span.spots.clear();
  for (int k = 0; rows && k < count_; ++k) rows[k].resize((end - begin) * parts_[k].h, parts_[k].v);
  for (int x = 0; x < end - begin; ++x)
    for (int k = 0; k < count_; ++k) {
      Part& part = parts_[k];
      for (int j = 0; j < part.v; ++j)
        for (int i = x * part.h; i < (x + 1) * part.h; ++i)
          span.spots.push_back({&dc_[part.dc], &ac_[part.ac], &part.prediction, rows ? rows[k].at(i, j) : nullptr,
                                rows ? &rows[k].last_at(i, j) : nullptr});
    }
}

// Reads the blocks [at, stop). The 56 bits after a refill are enough for five lookups of at most kLookup bits each.
template <bool kStore>
bool ScanReader::read_blocks(const Spot* at, const Spot* stop) {
  const uint8_t* const limit = bytes_.data() + length_ + 8;
  Bits bits = bits_;
  for (; at < stop; ++at) {
    int16_t* const block = at->block;
    auto store = [block](int k, int value) {
      if (kStore) block[kZigzag.place[k]] = static_cast<int16_t>(value);
    };
    bits.refill();
    Entry e = at->dc->entries[bits.peek()];
    if (__builtin_expect(e.bits, 1)) {
      bits.take(e.bits);
      *at->prediction += e.first;
    } else {
      const Symbol s = large_symbol(bits, e, *at->dc, true);
      if (!s.length) return false;
      *at->prediction += value_of(bits.buffer, s.length, s.size);
      bits.take(s.length + s.size);
      bits.refill();
    }
    store(0, *at->prediction);
    const Entry* const entries = at->ac->entries;
    int k = 0, last = kLast;           // index of the current coefficient, and of the last one in the block
    for (;;) {
      for (int i = 0; i < 4; ++i) {
        e = entries[bits.peek()];
        const int next = k + e.advance;
        if (__builtin_expect((next & (kEndOfBlock - 1)) >= kLast, 0)) goto unusual;
        store(next, e.second);         // after the end the value is 0, and the last position is unused
        store(k + e.first_advance, e.first);
        bits.take(e.bits);
        if (next >= kEndOfBlock) {
          last = next - kEndOfBlock;
          goto ended;
        }
        k = next;
      }
      bits.refill();
      continue;

    unusual:
      if (!e.bits) {
        bits.refill();
        const Symbol s = large_symbol(bits, e, *at->ac, false);
        if (!s.length) return false;
        if (s.advance == kEndOfBlock) {
          bits.take(s.length);
          last = k;
          goto ended;
        }
        k += s.advance;
        store(k, value_of(bits.buffer, s.length, s.size));
        bits.take(s.length + s.size);
        if (k >= kLast) break;
        bits.refill();
      } else {
        store(k + e.first_advance, e.first);
        const bool by_first = k + e.first_advance >= kLast;    // then the second symbol belongs to the next block
        if (!by_first) store(k + e.advance, e.second);
        bits.take(by_first ? e.first_bits : e.bits);
        k += by_first ? e.first_advance : e.advance;
        break;
      }
    }
    if (k != kLast) return false;      // coefficients beyond the end of the block
  ended:
    if (kStore) *at->last = static_cast<uint8_t>(last);
    if (__builtin_expect(bits.at > limit, 0)) return false;
  }
  bits_ = bits;
  return true;
}

// Moves to the segment of an MCU, and in it past the MCUs before.
bool ScanReader::skip_to(int64_t mcu) {
  if (mcu / interval_ != segment_ && !(segment_holds() && begin_segment(mcu / interval_))) return false;
  for (; next_ < mcu; ++next_)
    if (!read_blocks<false>(skipped_.spots.data(), skipped_.spots.data() + blocks_)) return false;
  return true;
}

bool ScanReader::read_row(int y, const Span& span) {
  const int64_t row = static_cast<int64_t>(y) * mcus_x_, end = row + span.end;
  const Spot* spots = span.spots.data();
  for (int k = 0; span.rows && k < count_; ++k) {      // all at once, which is faster than block by block
    BlockRow& blocks = span.rows[k];
    std::memset(blocks.at(0, 0), 0, sizeof(int16_t) * kArea * static_cast<size_t>(blocks.stride) * parts_[k].v);
  }
  for (int64_t at = row + span.begin, stop; at < end; at = next_ = stop) {
    if (!skip_to(at)) return false;
    stop = std::min((segment_ + 1) * interval_, end);
    const Spot* const next = spots + blocks_ * (stop - at);
    if (!(span.rows ? read_blocks<true>(spots, next) : read_blocks<false>(spots, next))) return false;
    spots = next;
  }
  return segment_holds();
}

}  // namespace imgtool
