// libjpeg's compressor for one image.
#pragma once

#include <cstdlib>
#include <string>

#include "jpeg.hpp"

namespace imgtool {

// Has no members with destructors, which libjpeg's errors would jump past. Every image ends with fail() or take(),
// which free the memory. Use: create(), then `if (setjmp(c.error.jump)) c.fail();`.
struct Compressor {
  jpeg_compress_struct cinfo{};
  ErrorState error;
  unsigned char* buffer = nullptr;
  unsigned long size = 0;

  // Throws ImageError.
  void create() {
    install(error);
    cinfo.err = &error.base;
    if (setjmp(error.jump)) fail();
    jpeg_create_compress(&cinfo);
    jpeg_mem_dest(&cinfo, &buffer, &size);
  }

  void set(int width, int height, J_COLOR_SPACE space, const Coding& coding) {
    cinfo.image_width = static_cast<JDIMENSION>(width);
    cinfo.image_height = static_cast<JDIMENSION>(height);
    cinfo.input_components = 3;
    cinfo.in_color_space = space;
    jpeg_set_defaults(&cinfo);
    jpeg_set_quality(&cinfo, coding.quality, TRUE);
    cinfo.comp_info[0].h_samp_factor = coding.subsampling.x;
    cinfo.comp_info[0].v_samp_factor = coding.subsampling.y;
    cinfo.restart_interval = static_cast<unsigned>(coding.restart);
  }

  void destroy() {
    jpeg_destroy_compress(&cinfo);
    std::free(buffer);
  }

  // Returns the bytes of the finished image.
  std::string take() {
    std::string out(reinterpret_cast<char*>(buffer), size);
    destroy();
    return out;
  }

  [[noreturn]] void fail() {
    const ImageError thrown(error.message);
    destroy();
    throw thrown;
  }
};

}  // namespace imgtool
