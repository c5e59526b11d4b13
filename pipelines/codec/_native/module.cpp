// The Python face of the codec. Every call that decodes releases the GIL.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "picture.hpp"
#include "pool.hpp"
#include "recode.hpp"

namespace py = pybind11;
using namespace imgtool;

namespace {

using Pixels = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>;
template <class T>
using Column = py::array_t<T, py::array::c_style>;   // exact dtype: anything else is a TypeError

struct Bytes {
  const uint8_t* data;
  size_t size;
  explicit Bytes(const py::buffer_info& info)
      : data(static_cast<const uint8_t*>(info.ptr)), size(static_cast<size_t>(info.size * info.itemsize)) {}
};

// One per thread that calls from Python; libjpeg's state is not cheap to make.
Worker& local_worker() {
  thread_local Worker worker;
  return worker;
}

Pixels to_array(const Picture& p) {
  Pixels out({p.height, p.width, 3});
  std::copy(p.rgb.begin(), p.rgb.end(), out.mutable_data());
  return out;
}

void check_rgb(const Pixels& a) {
  if (a.ndim() != 3 || a.shape(2) != 3 || a.shape(0) < 1 || a.shape(1) < 1)
    throw py::value_error("expected uint8 pixels of shape [H, W, 3]");
}

py::dict header_dict(const Header& h) {
  static const char* kSpaces[] = {"unknown", "grayscale", "rgb", "ycbcr", "cmyk", "ycck"};
  py::dict out;
  out["width"] = h.width;
  out["height"] = h.height;
  out["components"] = h.components;
  out["space"] = h.space <= JCS_YCCK ? kSpaces[h.space] : "unknown";
  out["progressive"] = h.progressive;
  out["orientation"] = h.orientation;
  out["sampling"] = py::make_tuple(h.h_samp, h.v_samp);
  return out;
}

py::dict probe(const py::buffer& data) {
  const py::buffer_info info = data.request();
  const Bytes bytes(info);
  const Header h = local_worker().decoder.open(bytes.data, bytes.size);
  local_worker().decoder.end();
  return header_dict(h);
}

py::tuple decode(const py::buffer& data, int max_side, int short_side, bool upright) {
  const py::buffer_info info = data.request();
  const Bytes bytes(info);
  Picture picture;
  {
    py::gil_scoped_release release;
    picture = decode_picture(local_worker(), bytes.data, bytes.size, {max_side, short_side}, upright);
  }
  return py::make_tuple(to_array(picture), picture.damaged);
}

py::tuple recode_bytes(const py::buffer& data, int max_side, int short_side, int quality, bool upright, bool fit,
                 std::pair<int, int> subsampling) {
  const py::buffer_info info = data.request();
  const Bytes bytes(info);
  Stored stored;
  {
    py::gil_scoped_release release;
    stored = recode(local_worker(), bytes.data, bytes.size, {max_side, short_side}, quality, upright, fit,
                             {subsampling.first, subsampling.second});
  }
  return py::make_tuple(py::bytes(stored.data), stored.width, stored.height, stored.damaged, stored.how,
                        header_dict(stored.source));
}

py::bytes encode_array(const Pixels& rgb, int quality, std::pair<int, int> subsampling) {
  check_rgb(rgb);
  const int h = static_cast<int>(rgb.shape(0)), w = static_cast<int>(rgb.shape(1));
  std::string out;
  {
    py::gil_scoped_release release;
    out = encode(rgb.data(), w, h, 3 * static_cast<size_t>(w), quality, {subsampling.first, subsampling.second});
  }
  return out;
}

Crop to_crop(const int32_t* c) { return {c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8] != 0}; }

Pixels resize_array(const Pixels& rgb, const Column<int32_t>& crop, int out_w, int out_h) {
  check_rgb(rgb);
  if (crop.size() != 9 || out_w < 1 || out_h < 1) throw py::value_error("a crop has 9 numbers");
  Pixels out({out_h, out_w, 3});
  const Crop c = to_crop(crop.data());
  {
    py::gil_scoped_release release;
    resize_crop(local_worker(), rgb.data(), static_cast<int>(rgb.shape(1)), static_cast<int>(rgb.shape(0)), c,
                out.mutable_data(), out_w, out_h);
  }
  return out;
}

// Decodes one batch: sample i is bytes [offset, offset + size) of buffers[shard]. Returns the errors as
// (i, message) pairs; a sample with an error leaves its pixels as they were.
std::vector<std::pair<int, std::string>> decode_batch(Pool& pool, const std::vector<py::buffer>& buffers,
                                                      const Column<int32_t>& shard, const Column<uint64_t>& offset,
                                                      const Column<uint64_t>& size, const Column<int32_t>& dims,
                                                      const Column<int32_t>& crops,
                                                      py::array_t<uint8_t, py::array::c_style> out) {
  const py::ssize_t n = shard.size();
  if (offset.size() != n || size.size() != n || dims.size() != 2 * n || crops.size() != 9 * n || out.ndim() != 4 ||
      out.shape(0) != n || out.shape(3) != 3)
    throw py::value_error("decode_batch: the arrays' shapes do not belong together");
  std::vector<py::buffer_info> infos;
  for (const auto& buffer : buffers) infos.push_back(buffer.request());
  const int out_h = static_cast<int>(out.shape(1)), out_w = static_cast<int>(out.shape(2));
  const size_t pixels = 3 * static_cast<size_t>(out_h) * out_w;
  uint8_t* base = out.mutable_data();
  std::vector<std::string> errors(static_cast<size_t>(n));
  {
    py::gil_scoped_release release;
    pool.run(static_cast<int>(n), [&](Worker& worker, int i) {
      try {
        const auto s = static_cast<size_t>(shard.data()[i]);
        if (s >= infos.size()) throw ImageError("no such shard");
        const Bytes bytes(infos[s]);
        const uint64_t at = offset.data()[i], length = size.data()[i];
        if (at > bytes.size || length > bytes.size - at) throw ImageError("the sample lies outside its shard");
        const int32_t* d = dims.data() + 2 * i;
        decode_crop(worker, bytes.data + at, length, d[0], d[1], to_crop(crops.data() + 9 * i), base + pixels * i,
                    out_w, out_h);
      } catch (const std::exception& e) {
        errors[static_cast<size_t>(i)] = *e.what() ? e.what() : "unknown error";
      }
    });
  }
  std::vector<std::pair<int, std::string>> failed;
  for (size_t i = 0; i < errors.size(); ++i)
    if (!errors[i].empty()) failed.emplace_back(static_cast<int>(i), errors[i]);
  return failed;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "libjpeg-turbo decode, resize and encode; see imgtool.pipelines.codec for the documented face.";
  static py::exception<ImageError> image_error(m, "NativeImageError");
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const ImageError& e) {
      py::set_error(image_error, e.what());
    }
  });
  m.def("probe", &probe, py::arg("data"));
  m.def("decode", &decode, py::arg("data"), py::arg("max_side"), py::arg("short_side"), py::arg("upright"));
  m.def("recode", &recode_bytes, py::arg("data"), py::arg("max_side"), py::arg("short_side"), py::arg("quality"),
        py::arg("upright"), py::arg("fit"), py::arg("subsampling"));
  m.def("encode", &encode_array, py::arg("rgb"), py::arg("quality"), py::arg("subsampling"));
  m.def("resize", &resize_array, py::arg("rgb"), py::arg("crop"), py::arg("width"), py::arg("height"));
  m.def("target_size", [](int max_side, int short_side, int width, int height) {
    int w, h;
    target_size({max_side, short_side}, width, height, &w, &h);
    return py::make_tuple(w, h);
  });
  py::class_<Pool>(m, "Pool")
      .def(py::init<int>(), py::arg("threads"))
      .def_property_readonly("threads", &Pool::threads)
      .def("decode_batch", &decode_batch, py::arg("buffers"), py::arg("shard"), py::arg("offset"), py::arg("size"),
           py::arg("dims"), py::arg("crops"), py::arg("out"));
}
