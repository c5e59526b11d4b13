#include <cstring>

#include "compressor.hpp"
#include "scan_writer.hpp"

namespace imgtool {

std::string encode(const uint8_t* rgb, int width, int height, size_t stride, const Coding& coding) {
  Compressor c;
  c.create();
  if (setjmp(c.error.jump)) c.fail();
  c.set(width, height, JCS_RGB, coding);
  jpeg_start_compress(&c.cinfo, TRUE);
  while (c.cinfo.next_scanline < c.cinfo.image_height) {
    JSAMPROW rows[1] = {const_cast<uint8_t*>(rgb) + stride * c.cinfo.next_scanline};
    jpeg_write_scanlines(&c.cinfo, rows, 1);
  }
  jpeg_finish_compress(&c.cinfo);
  return c.take();
}

std::string encode(Planes& planes, const Coding& coding) {
  static thread_local ScanWriter writer;
  static thread_local BlockRow rows[3];
  const Baseline& tables = Baseline::of(coding);
  const Subsampling subsampling = coding.subsampling;
  const int mcu_w = kSide * subsampling.x, mcu_h = kSide * subsampling.y;
  const int mcus = (planes.width + mcu_w - 1) / mcu_w;
  Steps steps[3];
  for (int k = 0; k < 3; ++k) {
    steps[k].set(tables.steps(k));
    pad_edges(planes.plane[k]);
    rows[k].resize(k ? mcus : mcus * subsampling.x, k ? 1 : subsampling.y);
  }
  std::string out = tables.header(planes.width, planes.height);
  writer.begin(tables);
  for (int top = 0; top < planes.height; top += mcu_h) {
    int across[3], down[3];
    for (int k = 0; k < 3; ++k) {
      const Plane& plane = planes.plane[k];
      const int y = k ? top / subsampling.y : top;
      across[k] = (plane.width + kSide - 1) / kSide;
      down[k] = (plane.height - y + kSide - 1) / kSide;
      for (int i = 0; i < (k ? 1 : subsampling.y) && i < down[k]; ++i)
        forward_dct(plane.row(y + kSide * i), plane.stride, across[k], steps[k], rows[k].at(0, i));
    }
    writer.write_row(rows, mcus, across, down);
  }
  writer.finish(out);
  return out;
}

std::string transcode(const uint8_t* data, size_t size, int divide_h, int divide_v) {
  Compressor c;
  jpeg_decompress_struct in{};
  c.create();
  in.err = &c.error.base;
  if (setjmp(c.error.jump)) {
    jpeg_destroy_decompress(&in);
    c.fail();
  }
  jpeg_create_decompress(&in);
  jpeg_progress_mgr progress{};
  limit_scans(in, progress);
  set_source(in, data, size);
  jpeg_read_header(&in, TRUE);
  jvirt_barray_ptr* coefficients = jpeg_read_coefficients(&in);
  jpeg_copy_critical_parameters(&in, &c.cinfo);
  // sampling factors 2x2, 2x2, 2x2 have the same blocks as 1x1, 1x1, 1x1, in another order
  for (int k = 0; k < in.num_components; ++k) {
    c.cinfo.comp_info[k].h_samp_factor /= divide_h;
    c.cinfo.comp_info[k].v_samp_factor /= divide_v;
  }
  c.cinfo.optimize_coding = TRUE;
  jpeg_write_coefficients(&c.cinfo, coefficients);
  jpeg_finish_compress(&c.cinfo);
  const bool misses = misses_scans(in);
  jpeg_finish_decompress(&in);
  jpeg_destroy_decompress(&in);
  if (c.error.truncated || c.error.damaged || misses) {
    std::strcpy(c.error.message, "damaged");
    c.fail();
  }
  return c.take();
}

}  // namespace imgtool
