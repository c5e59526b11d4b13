// Mutates a JPEG by its structure: finds its segments, and changes one in a way that its kind suggests.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace fuzz {

using Bytes = std::vector<uint8_t>;

struct Segment {
  size_t begin, end;                     // with its marker; a start of scan includes the scan
  uint8_t marker;
};

inline bool is_plain(uint8_t marker) { return marker == 0xD8 || marker == 0xD9 || (marker >= 0xD0 && marker <= 0xD7) || marker == 1; }

inline std::vector<Segment> segments_of(const Bytes& d) {
  std::vector<Segment> found;
  for (size_t at = 0; at + 2 <= d.size();) {
    const uint8_t marker = d[at + 1];
    if (d[at] != 0xFF || marker == 0xFF || marker == 0) {
      ++at;
      continue;
    }
    size_t end = at + 2;
    if (!is_plain(marker)) {
      if (at + 4 > d.size()) break;
      end = std::min(d.size(), end + (static_cast<size_t>(d[at + 2]) << 8 | d[at + 3]));
      while (marker == 0xDA && end < d.size() &&
             !(d[end] == 0xFF && end + 1 < d.size() && d[end + 1] && d[end + 1] != 0xFF && !(d[end + 1] >= 0xD0 && d[end + 1] <= 0xD7)))
        ++end;
    }
    found.push_back({at, end, marker});
    at = end;
  }
  return found;
}

class Mutator {
 public:
  Mutator(uint32_t seed, Bytes& data, const Bytes* other = nullptr) : random_(seed + 1), d_(data), other_(other) {}

  void mutate() {
    segments_ = segments_of(d_);
    if (segments_.empty()) return change(0, d_.size());
    using Change = void (Mutator::*)();
    static const Change kChanges[] = {
        &Mutator::huffman_table, &Mutator::huffman_table, &Mutator::quantiser,   &Mutator::frame,     &Mutator::frame,
        &Mutator::scan_header,   &Mutator::scan_header,   &Mutator::interval,    &Mutator::restarts,  &Mutator::restarts,
        &Mutator::scan,          &Mutator::scan,          &Mutator::scan,        &Mutator::truncate,  &Mutator::repeat,
        &Mutator::remove,        &Mutator::length,        &Mutator::application, &Mutator::transplant, &Mutator::anywhere,
    };
    (this->*kChanges[below(sizeof kChanges / sizeof *kChanges)])();
  }

 private:
  uint32_t below(size_t n) { return n ? static_cast<uint32_t>(random_() % n) : 0; }
  bool one_in(int n) { return below(static_cast<size_t>(n)) == 0; }
  uint8_t any() { return static_cast<uint8_t>(random_()); }
  void insert(size_t at, const Bytes& bytes) { d_.insert(d_.begin() + static_cast<long>(std::min(at, d_.size())), bytes.begin(), bytes.end()); }
  void erase(size_t begin, size_t end) { d_.erase(d_.begin() + static_cast<long>(begin), d_.begin() + static_cast<long>(end)); }
  void set(size_t at, int value) {
    if (at < d_.size()) d_[at] = static_cast<uint8_t>(value);
  }

  // Changes one byte of [begin, end).
  void change(size_t begin, size_t end) {
    end = std::min(end, d_.size());
    if (begin >= end) return;
    uint8_t& byte = d_[begin + below(end - begin)];
    static const uint8_t kValues[] = {0, 1, 2, 3, 4, 8, 0x10, 0x11, 0x12, 0x21, 0x22, 0x41, 0x44, 63, 64, 0x7F, 0x80, 0xD0, 0xD9, 0xF0, 0xFE, 0xFF};
    switch (below(4)) {
      case 0: byte ^= static_cast<uint8_t>(1 << below(8)); break;
      case 1: byte = any(); break;
      case 2: byte = kValues[below(sizeof kValues)]; break;
      default: byte = static_cast<uint8_t>(byte + (one_in(2) ? 1 : -1));
    }
  }

  // Returns one of the segments for which `test` holds and that have at least `size` bytes, or null.
  template <class Test>
  const Segment* one_of(Test test, size_t size) {
    std::vector<const Segment*> found;
    for (const Segment& s : segments_)
      if (test(s.marker) && s.end - s.begin >= size) found.push_back(&s);
    return found.empty() ? nullptr : found[below(found.size())];
  }
  const Segment* one_with(uint8_t marker, size_t size) {
    return one_of([marker](uint8_t m) { return m == marker; }, size);
  }

  void huffman_table() {
    const Segment* s = one_with(0xC4, 23);
    if (!s) return;
    const size_t counts = s->begin + 5, symbols = s->begin + 21, n = s->end - symbols;
    switch (below(5)) {
      case 0: return change(s->begin + 4, counts);
      case 1: return change(counts, symbols);
      case 2: {                          // from one length to another: the sum stays
        const size_t from = counts + below(16), to = counts + below(16);
        if (d_[from]) --d_[from], ++d_[to];
        return;
      }
      case 3: return change(symbols, s->end);
      default: std::swap(d_[symbols + below(n)], d_[symbols + below(n)]);
    }
  }

  void quantiser() {
    const Segment* s = one_with(0xDB, 6);
    if (!s) return;
    if (one_in(4)) return change(s->begin + 4, s->begin + 5);
    for (int i = static_cast<int>(below(4)); i >= 0; --i) change(s->begin + 5, s->end);
  }

  void frame() {
    const Segment* s = one_of([](uint8_t m) { return m >= 0xC0 && m <= 0xCF && m != 0xC4 && m != 0xC8 && m != 0xCC; }, 13);
    if (!s) return;
    static const uint8_t kCounts[] = {0, 1, 2, 3, 4, 5, 10, 255}, kKinds[] = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA, 0xC3, 0xC5};
    const size_t component = s->begin + 10 + 3 * below((s->end - s->begin - 10) / 3);
    switch (below(7)) {
      case 0: return change(s->begin + 4, s->begin + 5);       // precision
      case 1: {                                                // a size
        const size_t at = s->begin + 5 + 2 * below(2);
        set(at, 0), set(at + 1, static_cast<int>(1 + below(200)));
        return;
      }
      case 2: return set(s->begin + 9, kCounts[below(sizeof kCounts)]);
      case 3: return set(component + 1, one_in(8) ? any() : static_cast<int>((1 + below(4)) << 4 | (1 + below(4))));
      case 4: return set(component + 2, static_cast<int>(below(6)));
      case 5: return set(s->begin + 1, kKinds[below(sizeof kKinds)]);
      default: change(s->begin + 2, s->end);
    }
  }

  void scan_header() {
    const Segment* s = one_with(0xDA, 10);
    if (!s) return;
    const size_t count = std::min<size_t>(d_[s->begin + 4], 4), spectrum = s->begin + 5 + 2 * count;
    switch (below(5)) {
      case 0: return set(s->begin + 4, static_cast<int>(below(6)));
      case 1: return change(s->begin + 5, spectrum);
      case 2: return set(spectrum, static_cast<int>(below(65))), set(spectrum + 1, static_cast<int>(below(65)));
      case 3: return set(spectrum + 2, any());
      default: set(s->begin + 6 + 2 * below(count), static_cast<int>(below(4) << 4 | below(4)));
    }
  }

  void interval() {
    const auto value = static_cast<uint8_t>(one_in(2) ? any() : below(9));
    if (const Segment* s = one_with(0xDD, 6)) return set(s->begin + 5, value), set(s->begin + 4, one_in(8) ? any() : 0);
    if (const Segment* s = one_with(0xDA, 2)) insert(s->begin, {0xFF, 0xDD, 0, 4, 0, value});
  }

  void restarts() {
    const Segment* s = one_with(0xDA, 16);
    if (!s) return;
    std::vector<size_t> found;
    for (size_t i = s->begin + 8; i + 1 < s->end; ++i)
      if (d_[i] == 0xFF && d_[i + 1] >= 0xD0 && d_[i + 1] <= 0xD7) found.push_back(i);
    if (found.empty() || one_in(3))
      return insert(s->begin + 14 + below(s->end - s->begin - 14), {0xFF, static_cast<uint8_t>(0xD0 + below(8))});
    const size_t at = found[below(found.size())];
    if (one_in(2)) return erase(at, at + 2);
    d_[at + 1] = static_cast<uint8_t>(0xD0 + below(10));
  }

  void scan() {
    const Segment* s = one_with(0xDA, 17);
    if (!s) return;
    const size_t begin = s->begin + 14, at = begin + below(s->end - begin);
    switch (below(5)) {
      case 0:
        for (int i = static_cast<int>(below(6)); i >= 0; --i) change(begin, s->end);
        return;
      case 1: return erase(at, s->end);                        // the end marker stays
      case 2: return erase(at, std::min(s->end, at + 1 + below(32)));
      case 3: {
        Bytes bytes(1 + below(64), one_in(2) ? 0xFF : any());
        for (size_t i = 1; bytes[0] == 0xFF && i < bytes.size(); i += 2) bytes[i] = 0;
        return insert(at, bytes);
      }
      default: insert(at, {0xFF, one_in(3) ? any() : uint8_t{0xFF}});
    }
  }

  const Segment& any_segment() { return segments_[below(segments_.size())]; }
  void truncate() { d_.resize(1 + below(d_.size())); }
  void repeat() {
    const Segment s = any_segment();
    if (s.end - s.begin < 4000) insert(any_segment().begin, Bytes(&d_[s.begin], &d_[s.begin] + (s.end - s.begin)));
  }
  void remove() {
    const Segment s = any_segment();
    erase(s.begin, s.end);
  }
  void length() {
    const Segment s = any_segment();
    if (s.end - s.begin < 4) return;
    if (one_in(2)) return set(s.begin + 3, d_[s.begin + 3] + (one_in(2) ? 1 : -1));
    set(s.begin + 2, one_in(4) ? any() : 0), set(s.begin + 3, any());
  }

  // Inserts EXIF data with an orientation, or Adobe's segment with a colour transform.
  void application() {
    const auto value = static_cast<uint8_t>(below(10));
    Bytes made[] = {{0xFF, 0xE1, 0, 34, 'E', 'x', 'i', 'f', 0, 0, 'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, value, 0, 0, 0, 0, 0, 0, 0},
                    {0xFF, 0xE1, 0, 34, 'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, value, 0, 0, 0, 0, 0, 0},
                    {0xFF, 0xEE, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, static_cast<uint8_t>(value % 4)}};
    Bytes& bytes = made[below(3)];
    if (one_in(3)) bytes[2 + below(bytes.size() - 2)] = any();
    insert(2, bytes);
  }

  // Inserts a segment of another file, or replaces ours of its kind.
  void transplant() {
    if (!other_) return anywhere();
    const std::vector<Segment> theirs = segments_of(*other_);
    if (theirs.empty()) return;
    const Segment t = theirs[below(theirs.size())];
    if (t.end - t.begin > 20000) return;
    const Segment* ours = one_with(t.marker, 2);
    const size_t at = ours ? ours->begin : any_segment().begin;
    if (ours && one_in(2)) erase(ours->begin, ours->end);
    insert(at, Bytes(other_->data() + t.begin, other_->data() + t.end));
  }

  void anywhere() {
    if (one_in(3)) return insert(d_.size(), Bytes(1 + below(40), any()));
    for (int i = static_cast<int>(below(3)); i >= 0; --i) change(0, d_.size());
  }

  std::minstd_rand random_;
  Bytes& d_;
  const Bytes* other_;
  std::vector<Segment> segments_;
};

}  // namespace fuzz
