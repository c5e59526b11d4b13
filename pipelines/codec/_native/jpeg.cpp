#include "jpeg.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include <jerror.h>

#include "requantise.hpp"

namespace imgtool {
namespace {

void on_error(j_common_ptr cinfo) {
  auto* state = reinterpret_cast<ErrorState*>(cinfo->err);
  (*cinfo->err->format_message)(cinfo, state->message);
  std::longjmp(state->jump, 1);
}

// Classifies warnings instead of printing them: the data ended, the data is damaged, or it does not matter
// (such as extra bytes before a marker, which real ImageNet files have).
void on_message(j_common_ptr cinfo, int level) {
  if (level >= 0) return;
  auto* state = reinterpret_cast<ErrorState*>(cinfo->err);
  const int code = cinfo->err->msg_code;
  if (code == JWRN_HIT_MARKER && state->ended) {
    state->truncated = true;
  } else if (code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE || code == JWRN_MUST_RESYNC ||
             code == JWRN_ARITH_BAD_CODE) {
    state->damaged = true;
  } else {
    return;
  }
  if (state->first_bad_row < 0 && cinfo->is_decompressor)
    state->first_bad_row = static_cast<int>(reinterpret_cast<j_decompress_ptr>(cinfo)->output_scanline);
}

void no_output(j_common_ptr) {}

// Called when the data ends. libjpeg's default function warns here, even if only the end marker is missing, as in many
// files. With an inserted end marker, it warns (JWRN_HIT_MARKER) only if it needs bits that are missing.
boolean end_of_data(j_decompress_ptr cinfo) {
  static const JOCTET kEndMarker[2] = {0xFF, JPEG_EOI};
  reinterpret_cast<ErrorState*>(cinfo->err)->ended = true;
  cinfo->src->next_input_byte = kEndMarker;
  cinfo->src->bytes_in_buffer = 2;
  return TRUE;
}

void check_scans(j_common_ptr cinfo) {
  const auto* image = reinterpret_cast<j_decompress_ptr>(cinfo);
  const int64_t pixels = static_cast<int64_t>(image->image_width) * image->image_height;
  const int64_t most = std::min<int64_t>(kMaxScans, kMaxScannedPixels / std::max<int64_t>(pixels, 1));
  if (image->input_scan_number <= most) return;
  auto* state = reinterpret_cast<ErrorState*>(cinfo->err);
  std::snprintf(state->message, sizeof state->message, "more than %d scans of %u x %u pixels", static_cast<int>(most),
                image->image_width, image->image_height);
  std::longjmp(state->jump, 1);
}

// Tells whether a JPEG of this many bytes can be whole: each block takes at least one bit. (Arithmetic coding can take
// less for a flat image; larger ones of that kind are not real.)
bool can_be_whole(const jpeg_decompress_struct& cinfo, size_t size) {
  size_t blocks = 0;
  for (int k = 0; k < cinfo.num_components; ++k)
    blocks += static_cast<size_t>(cinfo.comp_info[k].width_in_blocks) * cinfo.comp_info[k].height_in_blocks;
  return blocks / 8 <= size;
}

// Tells whether an APP1 segment holds EXIF data.
bool is_exif(const uint8_t* p, size_t n) { return n > 6 && std::memcmp(p, "Exif\0\0", 6) == 0; }

// Converts CMYK to RGB as Pillow does. The inks are stored inverted in Adobe's files, and all common readers take files
// without Adobe's marker for the same.
void cmyk_to_rgbx(uint8_t* row, int width) {
  for (int i = 0; i < width; ++i, row += 4) {
    const int k = row[3];
    for (int c = 0; c < 3; ++c) {
      const int t = row[c] * k + 128;
      row[c] = static_cast<uint8_t>(((t >> 8) + t) >> 8);
    }
  }
}

}  // namespace

int exif_orientation(const uint8_t* p, size_t n) {
  if (n < 8) return 1;
  const bool big = p[0] == 'M' && p[1] == 'M';
  if (!big && !(p[0] == 'I' && p[1] == 'I')) return 1;
  auto u16 = [&](size_t at) -> uint32_t { return big ? p[at] << 8 | p[at + 1] : p[at + 1] << 8 | p[at]; };
  auto u32 = [&](size_t at) -> uint32_t {
    return big ? u16(at) << 16 | u16(at + 2) : u16(at + 2) << 16 | u16(at);
  };
  if (u16(2) != 42) return 1;
  const size_t ifd = u32(4);
  if (ifd + 2 > n) return 1;
  const size_t entries = u16(ifd);
  for (size_t i = 0; i < entries; ++i) {
    const size_t at = ifd + 2 + 12 * i;
    if (at + 12 > n) return 1;
    if (u16(at) != 0x0112) continue;
    uint32_t value = 0;
    switch (u16(at + 2)) {
      case 1: case 2: case 7:            // BYTE, ASCII, UNDEFINED: as OpenCV and torchvision read them
      case 3: case 8:                    // SHORT, SSHORT
        value = u16(at + 8);
        break;
      case 6:                            // SBYTE
        value = p[at + 8];
        break;
      case 4: case 9: case 13:           // LONG, SLONG, IFD; two of them are stored elsewhere
        if (u32(at + 4) == 1) value = u32(at + 8);
        break;
      default: break;
    }
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

void install(ErrorState& state) {
  jpeg_std_error(&state.base);
  state.base.error_exit = on_error;
  state.base.emit_message = on_message;
  state.base.output_message = no_output;
}

void limit_scans(jpeg_decompress_struct& cinfo, jpeg_progress_mgr& progress) {
  progress.progress_monitor = check_scans;
  cinfo.progress = &progress;
}

void set_source(jpeg_decompress_struct& cinfo, const uint8_t* data, size_t size) {
  jpeg_mem_src(&cinfo, data, static_cast<unsigned long>(size));
  cinfo.src->fill_input_buffer = end_of_data;
}

bool misses_scans(const jpeg_decompress_struct& cinfo) {
  for (int k = 0; k < cinfo.num_components; ++k) {
    if (!cinfo.comp_info[k].quant_table) return true;  // set by the component's first scan
    if (!cinfo.progressive_mode || !reinterpret_cast<const ErrorState*>(cinfo.err)->ended) continue;
    for (int i = 0; i < DCTSIZE2; ++i)
      if (cinfo.coef_bits[k][i] != 0) return true;
  }
  return false;
}

void Decoder::fail() {
  end();
  throw ImageError(error_.message);
}

void Decoder::end() noexcept { jpeg_destroy_decompress(&cinfo_); }

bool Decoder::misses_scans() const {
  const bool single = !cinfo_.progressive_mode && cinfo_.comps_in_scan == cinfo_.num_components;
  return !single && imgtool::misses_scans(cinfo_);     // our own decoder reads single scans only
}

const Header& Decoder::open(const uint8_t* data, size_t size) {
  end();
  error_.ended = error_.truncated = error_.damaged = false;
  error_.first_bad_row = -1;
  install(error_);
  cinfo_.err = &error_.base;
  if (setjmp(error_.jump)) fail();
  jpeg_create_decompress(&cinfo_);
  limit_scans(cinfo_, progress_);
  jpeg_save_markers(&cinfo_, JPEG_APP0 + 1, 0xFFFF);
  set_source(cinfo_, data, size);
  jpeg_read_header(&cinfo_, TRUE);
  header_.width = static_cast<int>(cinfo_.image_width);
  header_.height = static_cast<int>(cinfo_.image_height);
  header_.components = cinfo_.num_components;
  if (cinfo_.data_precision != 8) {
    std::snprintf(error_.message, sizeof error_.message, "%d bits per sample are not supported", cinfo_.data_precision);
    fail();
  }
  header_.space = cinfo_.jpeg_color_space;
  header_.progressive = cinfo_.progressive_mode;
  header_.arithmetic = cinfo_.arith_code;
  header_.h_samp = cinfo_.comp_info[0].h_samp_factor;
  header_.v_samp = cinfo_.comp_info[0].v_samp_factor;
  const jpeg_component_info* c = cinfo_.comp_info;
  const bool same = cinfo_.num_components == 3 && c[1].h_samp_factor == c[2].h_samp_factor &&
                    c[1].v_samp_factor == c[2].v_samp_factor;
  header_.chroma_h = same ? c[1].h_samp_factor : 0;
  header_.chroma_v = same ? c[1].v_samp_factor : 0;
  header_.fractional = false;
  for (int k = 0; k < cinfo_.num_components; ++k)
    if (cinfo_.max_h_samp_factor % c[k].h_samp_factor || cinfo_.max_v_samp_factor % c[k].v_samp_factor)
      header_.fractional = true;
  header_.regular = header_.progressive || is_regular();
  header_.orientation = 1;
  const jpeg_marker_struct* m = cinfo_.marker_list;
  while (m && !is_exif(m->data, m->data_length)) m = m->next;
  if (m) header_.orientation = exif_orientation(m->data + 6, m->data_length - 6);    // the first one counts
  if (static_cast<int64_t>(header_.width) * header_.height > kMaxPixels) {
    std::snprintf(error_.message, sizeof error_.message, "%d x %d is larger than %lld million pixels",
                  header_.width, header_.height, static_cast<long long>(kMaxPixels / 1'000'000));
    fail();
  }
  if (!can_be_whole(cinfo_, size)) {
    std::snprintf(error_.message, sizeof error_.message, "truncated: %zu bytes cannot hold %d x %d pixels", size,
                  header_.width, header_.height);
    fail();
  }
  return header_;
}

bool Decoder::is_regular() const {
  if (cinfo_.Ss != 0 || cinfo_.Se != DCTSIZE2 - 1 || cinfo_.Ah != 0 || cinfo_.Al != 0) return false;
  for (int i = 0; i < cinfo_.comps_in_scan && !cinfo_.arith_code; ++i) {
    const int dc = cinfo_.cur_comp_info[i]->dc_tbl_no, ac = cinfo_.cur_comp_info[i]->ac_tbl_no;
    for (const int number : {dc, ac})  // from the file; libjpeg has not checked them yet
      if (number < 0 || number >= NUM_HUFF_TBLS) return false;
    if (!cinfo_.dc_huff_tbl_ptrs[dc] || !cinfo_.ac_huff_tbl_ptrs[ac]) return false;
  }
  return true;
}

void Decoder::begin(int x, int y, int w) {
  if (setjmp(error_.jump)) fail();
  const bool cmyk = header_.space == JCS_CMYK || header_.space == JCS_YCCK;
  cinfo_.out_color_space = cmyk ? JCS_CMYK : JCS_EXT_RGBX;
  jpeg_start_decompress(&cinfo_);
  width_ = w;
  skip_bytes_ = 4 * static_cast<size_t>(x);
  // Chroma upsampling uses one chroma sample on each side. So the decoded columns must extend 2 pixels beyond the crop
  // for its edge to equal that of a full decode. libjpeg itself extends them to whole MCUs.
  const int left = std::max(x - 2, 0), right = std::min(x + w + 2, header_.width);
  if (left > 0 || right < header_.width) {
    JDIMENSION offset = static_cast<JDIMENSION>(left), width = static_cast<JDIMENSION>(right - left);
    jpeg_crop_scanline(&cinfo_, &offset, &width);
    skip_bytes_ = 4 * (static_cast<size_t>(x) - offset);
  }
  line_.resize(4 * static_cast<size_t>(cinfo_.output_width) + 16);
  if (y > 0) jpeg_skip_scanlines(&cinfo_, static_cast<JDIMENSION>(y));
}

const uint8_t* Decoder::row() {
  if (setjmp(error_.jump)) fail();
  JSAMPROW rows[1] = {line_.data()};
  jpeg_read_scanlines(&cinfo_, rows, 1);
  uint8_t* pixels = line_.data() + skip_bytes_;
  if (cinfo_.out_color_space == JCS_CMYK) cmyk_to_rgbx(pixels, width_);
  return pixels;
}

bool Decoder::steps_of(int component, Steps& steps) const {
  const int number = cinfo_.comp_info[component].quant_tbl_no;     // from the file; libjpeg has not checked it yet
  const JQUANT_TBL* table = number >= 0 && number < NUM_QUANT_TBLS ? cinfo_.quant_tbl_ptrs[number] : nullptr;
  if (!table) return false;
  steps.set(table->quantval);
  return true;
}

void Decoder::describe(Planes& planes) const {
  planes.count = cinfo_.num_components;
  planes.rgb = false;
  planes.width = header_.width;
  planes.height = header_.height;
  int max_h = 1, max_v = 1;
  for (int k = 0; k < planes.count; ++k) {
    max_h = std::max(max_h, cinfo_.comp_info[k].h_samp_factor);
    max_v = std::max(max_v, cinfo_.comp_info[k].v_samp_factor);
  }
  for (int k = 0; k < planes.count; ++k) {
    planes.span_x[k] = static_cast<double>(max_h) / cinfo_.comp_info[k].h_samp_factor;
    planes.span_y[k] = static_cast<double>(max_v) / cinfo_.comp_info[k].v_samp_factor;
  }
}

// Decodes with our own decoder. False if it cannot.
bool Decoder::read_mcus(const Region& region, Planes& planes) {
  Steps steps[3];
  for (int k = 0; k < planes.count; ++k)
    if (!steps_of(k, steps[k])) return false;
  reader_.assign(span_, region.left, region.right, rows_);
  for (int y = region.top; y < region.bottom; ++y) {
    if (!reader_.read_row(y, span_)) return false;
    for (int k = 0; k < planes.count; ++k)
      for (int i = 0; i < reader_.v(k); ++i)
        inverse_dct(rows_[k].at(0, i), &rows_[k].last_at(0, i), rows_[k].stride, steps[k],
                    planes.plane[k].row(kSide * ((y - region.top) * reader_.v(k) + i)), planes.plane[k].stride);
  }
  return true;
}

// Finds the MCUs that contain the rectangle. False if our own decoder cannot read the image.
bool Decoder::open_region(int x, int y, int w, int h, Region& region) {
  if ((header_.space != JCS_YCbCr && header_.space != JCS_GRAYSCALE) || !reader_.open(cinfo_)) return false;
  int mcu_w = kSide, mcu_h = kSide;
  for (int k = 0; k < reader_.components(); ++k) {
    mcu_w = std::max(mcu_w, kSide * reader_.h(k));
    mcu_h = std::max(mcu_h, kSide * reader_.v(k));
  }
  region = {x / mcu_w, y / mcu_h, (x + w + mcu_w - 1) / mcu_w, (y + h + mcu_h - 1) / mcu_h};
  return true;
}

bool Decoder::read_region(int x, int y, int w, int h, Planes& planes) {
  Region region;
  if (!open_region(x, y, w, h, region)) return false;
  describe(planes);
  for (int k = 0; k < planes.count; ++k) {
    const int across = kSide * reader_.h(k), down = kSide * reader_.v(k);
    planes.plane[k].resize((region.right - region.left) * across, (region.bottom - region.top) * down);
    planes.plane[k].left = region.left * across;
    planes.plane[k].top = region.top * down;
  }
  return read_mcus(region, planes);
}

bool Decoder::read_coefficients(int x, int y, int w, int h, bool store) {
  Region region;
  if (!open_region(x, y, w, h, region)) return false;
  reader_.assign(span_, region.left, region.right, store ? rows_ : nullptr);
  for (int row = region.top; row < region.bottom; ++row)
    if (!reader_.read_row(row, span_)) return false;
  return true;
}

bool Decoder::read_whole() {
  Steps steps;
  for (int k = 0; k < header_.components; ++k)
    if (!steps_of(k, steps)) return false;
  return read_coefficients(0, 0, header_.width, header_.height, false);
}

bool Decoder::is_whole(bool plain) {
  if (plain && read_whole()) return true;
  if (setjmp(error_.jump)) fail();
  jpeg_read_coefficients(&cinfo_);
  return !error_.truncated && !error_.damaged && !misses_scans();
}

bool Decoder::requantise(const Coding& coding, std::string& out) {
  Steps steps[3];
  for (int k = 0; k < 3; ++k)
    if (header_.components != 3 || !steps_of(k, steps[k])) return false;
  return reader_.open(cinfo_) && imgtool::requantise(reader_, header_.width, header_.height, steps, coding, out);
}

void Decoder::read(Planes& planes) {
  describe(planes);
  for (int k = 0; k < planes.count; ++k) {
    planes.plane[k].resize(static_cast<int>(std::ceil(header_.width / planes.span_x[k])),
                           static_cast<int>(std::ceil(header_.height / planes.span_y[k])));
    planes.plane[k].left = planes.plane[k].top = 0;
  }
  if (reader_.open(cinfo_) && read_mcus({0, 0, reader_.mcus_x(), reader_.mcus_y()}, planes)) return;
  if (setjmp(error_.jump)) fail();
  cinfo_.out_color_space = cinfo_.jpeg_color_space;
  cinfo_.raw_data_out = TRUE;
  jpeg_start_decompress(&cinfo_);
  const int lines = cinfo_.max_v_samp_factor * DCTSIZE;
  for (int mcu_row = 0; cinfo_.output_scanline < cinfo_.output_height; ++mcu_row) {
    JSAMPROW rows[3][4 * DCTSIZE];
    JSAMPARRAY arrays[3];
    for (int k = 0; k < planes.count; ++k) {
      const int height = cinfo_.comp_info[k].v_samp_factor * DCTSIZE;
      for (int i = 0; i < height; ++i) rows[k][i] = planes.plane[k].row(mcu_row * height + i);
      arrays[k] = rows[k];
    }
    jpeg_read_raw_data(&cinfo_, arrays, static_cast<JDIMENSION>(lines));
  }
}

}  // namespace imgtool
