#include <cstdlib>
#include <cstring>

#include "jpeg.hpp"

namespace imgtool {
namespace {

// libjpeg's state and output buffer for one picture. The members are plain: an error jumps past destructors, so the
// caller frees them in the one place that it jumps to.
struct Compressor {
  jpeg_compress_struct cinfo{};
  ErrorState error;
  unsigned char* buffer = nullptr;
  unsigned long size = 0;

  void create() {
    jpeg_create_compress(&cinfo);
    jpeg_mem_dest(&cinfo, &buffer, &size);
  }
  void destroy() {
    jpeg_destroy_compress(&cinfo);
    std::free(buffer);
  }
};

void set(jpeg_compress_struct& cinfo, int width, int height, J_COLOR_SPACE space, int quality, Subsampling s) {
  cinfo.image_width = static_cast<JDIMENSION>(width);
  cinfo.image_height = static_cast<JDIMENSION>(height);
  cinfo.input_components = 3;
  cinfo.in_color_space = space;
  jpeg_set_defaults(&cinfo);
  jpeg_set_quality(&cinfo, quality, TRUE);
  cinfo.comp_info[0].h_samp_factor = s.x;
  cinfo.comp_info[0].v_samp_factor = s.y;
}

// The bytes of a finished picture. Frees the state.
std::string take(Compressor& c) {
  std::string out(reinterpret_cast<char*>(c.buffer), c.size);
  c.destroy();
  return out;
}

[[noreturn]] void fail(Compressor& c) {
  const ImageError error(c.error.message);
  c.destroy();
  throw error;
}

}  // namespace

std::string encode(const uint8_t* rgb, int width, int height, size_t stride, int quality, Subsampling subsampling) {
  Compressor c;
  install(c.error);
  c.cinfo.err = &c.error.base;
  if (setjmp(c.error.jump)) fail(c);
  c.create();
  set(c.cinfo, width, height, JCS_RGB, quality, subsampling);
  jpeg_start_compress(&c.cinfo, TRUE);
  while (c.cinfo.next_scanline < c.cinfo.image_height) {
    JSAMPROW rows[1] = {const_cast<uint8_t*>(rgb) + stride * c.cinfo.next_scanline};
    jpeg_write_scanlines(&c.cinfo, rows, 1);
  }
  jpeg_finish_compress(&c.cinfo);
  return take(c);
}

std::string encode(Planes& planes, int quality, Subsampling subsampling) {
  Compressor c;
  install(c.error);
  c.cinfo.err = &c.error.base;
  for (Plane& plane : planes.plane) pad_edges(plane);
  if (setjmp(c.error.jump)) fail(c);
  c.create();
  set(c.cinfo, planes.width, planes.height, JCS_YCbCr, quality, subsampling);
  c.cinfo.raw_data_in = TRUE;
  jpeg_start_compress(&c.cinfo, TRUE);
  const int lines = subsampling.y * DCTSIZE;
  while (c.cinfo.next_scanline < c.cinfo.image_height) {
    const int mcu_row = static_cast<int>(c.cinfo.next_scanline) / lines;
    JSAMPROW rows[3][4 * DCTSIZE];
    JSAMPARRAY arrays[3];
    for (int k = 0; k < 3; ++k) {
      const int height = k ? DCTSIZE : lines;
      for (int i = 0; i < height; ++i) rows[k][i] = planes.plane[k].row(mcu_row * height + i);
      arrays[k] = rows[k];
    }
    jpeg_write_raw_data(&c.cinfo, arrays, static_cast<JDIMENSION>(lines));
  }
  jpeg_finish_compress(&c.cinfo);
  return take(c);
}

std::string transcode(const uint8_t* data, size_t size) {
  Compressor c;
  jpeg_decompress_struct in{};
  install(c.error);
  in.err = c.cinfo.err = &c.error.base;
  if (setjmp(c.error.jump)) {
    jpeg_destroy_decompress(&in);
    fail(c);
  }
  jpeg_create_decompress(&in);
  jpeg_progress_mgr progress{};
  limit_scans(in, progress);
  c.create();
  set_source(in, data, size);
  jpeg_read_header(&in, TRUE);
  jvirt_barray_ptr* coefficients = jpeg_read_coefficients(&in);
  jpeg_copy_critical_parameters(&in, &c.cinfo);
  // 2x2, 2x2, 2x2 holds the same blocks as 1x1, 1x1, 1x1, in another order
  const int h = in.comp_info[1].h_samp_factor, v = in.comp_info[1].v_samp_factor;
  for (int k = 0; k < in.num_components; ++k) {
    c.cinfo.comp_info[k].h_samp_factor /= h;
    c.cinfo.comp_info[k].v_samp_factor /= v;
  }
  c.cinfo.optimize_coding = TRUE;
  jpeg_write_coefficients(&c.cinfo, coefficients);
  jpeg_finish_compress(&c.cinfo);
  jpeg_finish_decompress(&in);
  jpeg_destroy_decompress(&in);
  if (c.error.truncated || c.error.damaged) {
    std::strcpy(c.error.message, "damaged");
    fail(c);
  }
  return take(c);
}

}  // namespace imgtool
