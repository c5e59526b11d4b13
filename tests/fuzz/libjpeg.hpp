// What libjpeg alone makes of a JPEG: the reference of our decoder.
#pragma once

#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "jpeg.hpp"
#include "markers.hpp"

namespace fuzz {

using namespace imgtool;

struct Reading {
  std::string error;                     // empty: it could be read
  int width = 0, height = 0, count = 0;
  bool truncated = false, damaged = false;
  bool ordinary = true;                  // all dequantised coefficients are such as samples can have
  std::vector<uint8_t> rgbx;             // 4 bytes per pixel
  std::vector<uint8_t> planes[3];
  size_t stride[3] = {};
  int plane_w[3] = {}, plane_h[3] = {};
};

enum class As { rgb, planes, coefficients };

namespace detail {

inline void rows_of_rgb(jpeg_decompress_struct& c, Reading& r) {
  if (c.jpeg_color_space != JCS_CMYK && c.jpeg_color_space != JCS_YCCK) c.out_color_space = JCS_EXT_RGBX;
  jpeg_start_decompress(&c);
  const size_t stride = static_cast<size_t>(c.output_width) * c.output_components;
  r.rgbx.resize(stride * c.output_height);
  while (c.output_scanline < c.output_height) {
    JSAMPROW row[1] = {r.rgbx.data() + stride * c.output_scanline};
    jpeg_read_scanlines(&c, row, 1);
  }
}

inline void rows_of_planes(jpeg_decompress_struct& c, Reading& r) {
  c.out_color_space = c.jpeg_color_space;
  c.raw_data_out = TRUE;
  jpeg_start_decompress(&c);
  r.count = c.num_components;
  for (int k = 0; k < r.count; ++k) {
    const jpeg_component_info& info = c.comp_info[k];
    r.plane_w[k] = static_cast<int>(info.downsampled_width);
    r.plane_h[k] = static_cast<int>(info.downsampled_height);
    r.stride[k] = (info.width_in_blocks + 8) * DCTSIZE;
    r.planes[k].assign(r.stride[k] * (info.height_in_blocks + 8) * DCTSIZE, 0);
  }
  for (size_t row = 0; c.output_scanline < c.output_height; ++row) {
    JSAMPROW rows[3][4 * DCTSIZE];
    JSAMPARRAY arrays[3];
    for (int k = 0; k < r.count; ++k) {
      const size_t lines = static_cast<size_t>(c.comp_info[k].v_samp_factor) * DCTSIZE;
      for (size_t i = 0; i < lines; ++i) rows[k][i] = r.planes[k].data() + r.stride[k] * (row * lines + i);
      arrays[k] = rows[k];
    }
    jpeg_read_raw_data(&c, arrays, static_cast<JDIMENSION>(c.max_v_samp_factor * DCTSIZE));
  }
}

inline void range_of_coefficients(jpeg_decompress_struct& c, Reading& r) {
  constexpr int kMost = 1100;            // 8 times the largest sample, and rounding
  jvirt_barray_ptr* arrays = jpeg_read_coefficients(&c);
  for (int k = 0; k < c.num_components; ++k) {
    const jpeg_component_info& info = c.comp_info[k];
    if (!info.quant_table) continue;     // no scan of it was found
    for (JDIMENSION y = 0; y < info.height_in_blocks; ++y) {
      const JBLOCKARRAY rows = c.mem->access_virt_barray(reinterpret_cast<j_common_ptr>(&c), arrays[k], y, 1, FALSE);
      for (JDIMENSION x = 0; x < info.width_in_blocks; ++x)
        for (int i = 0; i < DCTSIZE2; ++i)
          if (std::abs(rows[0][x][i] * info.quant_table->quantval[i]) > kMost) r.ordinary = false;
    }
  }
}

}  // namespace detail

inline void read_with_libjpeg(const uint8_t* data, size_t size, As as, Reading& r) {
  static ErrorState error;               // static: not changed by longjmp
  error = ErrorState{};
  install(error);
  jpeg_decompress_struct c{};
  jpeg_progress_mgr progress{};
  c.err = &error.base;
  if (setjmp(error.jump)) {
    r.error = error.message;
    jpeg_destroy_decompress(&c);
    return;
  }
  jpeg_create_decompress(&c);
  limit_scans(c, progress);
  set_source(c, data, size);
  jpeg_read_header(&c, TRUE);
  r.width = static_cast<int>(c.image_width);
  r.height = static_cast<int>(c.image_height);
  if (as == As::rgb) detail::rows_of_rgb(c, r);
  if (as == As::planes) detail::rows_of_planes(c, r);
  if (as == As::coefficients) detail::range_of_coefficients(c, r);
  const bool single = !c.progressive_mode && c.comps_in_scan == c.num_components;    // as in Decoder::misses_scans()
  r.truncated = error.truncated || (!single && misses_scans(c));
  r.damaged = error.damaged;
  jpeg_destroy_decompress(&c);
}

inline Reading read_with_libjpeg(const uint8_t* data, size_t size, As as = As::rgb) {
  Reading reading;
  read_with_libjpeg(data, size, as, reading);
  return reading;
}

}  // namespace fuzz
