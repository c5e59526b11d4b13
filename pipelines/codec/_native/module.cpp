// The Python face of the codec. Every call that decodes releases the GIL.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "isa.hpp"
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
  Bytes(const uint8_t* d, size_t n) : data(d), size(n) {}
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

bool read_coefficients(const py::buffer& data, int x, int y, int w, int h) {
  const py::buffer_info info = data.request();
  const Bytes bytes(info);
  py::gil_scoped_release release;
  Decoder& decoder = local_worker().decoder;
  const Header& header = decoder.open(bytes.data, bytes.size);
  if (x < 0 || y < 0 || w < 1 || h < 1 || x + w > header.width || y + h > header.height)
    throw ImageError("the crop does not lie inside the picture");
  const bool read = decoder.read_coefficients(x, y, w, h);
  decoder.end();
  return read;
}

py::tuple recode_bytes(const py::buffer& data, int max_side, int short_side, int quality, bool upright, bool fit,
                       std::pair<int, int> subsampling, int restart) {
  const py::buffer_info info = data.request();
  const Bytes bytes(info);
  Stored stored;
  {
    py::gil_scoped_release release;
    stored = recode(local_worker(), bytes.data, bytes.size, {max_side, short_side},
                    {quality, {subsampling.first, subsampling.second}, restart}, upright, fit);
  }
  return py::make_tuple(py::bytes(stored.data), stored.width, stored.height, stored.damaged, stored.how,
                        header_dict(stored.source));
}

py::bytes encode_array(const Pixels& rgb, int quality, std::pair<int, int> subsampling, int restart) {
  check_rgb(rgb);
  const int h = static_cast<int>(rgb.shape(0)), w = static_cast<int>(rgb.shape(1));
  std::string out;
  {
    py::gil_scoped_release release;
    out = encode(rgb.data(), w, h, 3 * static_cast<size_t>(w),
                 {quality, {subsampling.first, subsampling.second}, restart});
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

// What samples are read from: memory-mapped shards.
class Buffers {
 public:
  explicit Buffers(const std::vector<py::buffer>& buffers) {
    for (const auto& buffer : buffers) infos_.push_back(buffer.request());
  }
  Bytes at(int shard, uint64_t offset, uint64_t size) const {
    const auto s = static_cast<size_t>(shard);
    if (s >= infos_.size()) throw ImageError("no such shard");
    const Bytes bytes(infos_[s]);
    if (offset > bytes.size || size > bytes.size - offset) throw ImageError("the sample lies outside its shard");
    return {bytes.data + offset, static_cast<size_t>(size)};
  }

 private:
  std::vector<py::buffer_info> infos_;
};

// Asks the system to read a sample into memory, so that it is there when its turn comes.
void read_ahead(const Bytes& bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(bytes.data) / page * page;
  madvise(reinterpret_cast<void*>(begin), reinterpret_cast<uintptr_t>(bytes.data) + bytes.size - begin, MADV_WILLNEED);
}

// A batch that the pool's threads are decoding, and all that they read and write.
class Batch {
 public:
  Batch(Pool& pool, const Buffers& buffers, Column<int32_t> shard, Column<uint64_t> offset, Column<uint64_t> size,
        Column<uint8_t> raw, Column<int32_t> dims, Column<int32_t> crops, Column<uint8_t> out)
      : pool_(pool), held_{shard, offset, size, raw, dims, crops, out} {
    const py::ssize_t n = shard.size();
    if (offset.size() != n || size.size() != n || raw.size() != n || dims.size() != 2 * n || crops.size() != 9 * n ||
        out.ndim() != 4 || out.shape(0) != n || out.shape(3) != 3)
      throw py::value_error("the arrays' shapes do not belong together");
    const int out_h = static_cast<int>(out.shape(1)), out_w = static_cast<int>(out.shape(2));
    const size_t pixels = 3 * static_cast<size_t>(out_h) * out_w;
    errors_.resize(static_cast<size_t>(n));
    auto job = [this, &buffers, s = shard.data(), o = offset.data(), z = size.data(), r = raw.data(), d = dims.data(),
                c = crops.data(), to = out.mutable_data(), pixels, out_w, out_h](Worker& worker, int i) {
      try {
        const Bytes bytes = buffers.at(s[i], o[i], z[i]);
        const Crop crop = to_crop(c + 9 * i);
        auto decode = r[i] ? crop_raw : decode_crop;
        decode(worker, bytes.data, bytes.size, d[2 * i], d[2 * i + 1], crop, to + pixels * i, out_w, out_h);
      } catch (const std::exception& e) {
        errors_[static_cast<size_t>(i)] = *e.what() ? e.what() : "unknown error";
      }
    };
    py::gil_scoped_release release;
    for (py::ssize_t i = 0; i < n; ++i) {
      try {
        read_ahead(buffers.at(shard.data()[i], offset.data()[i], size.data()[i]));
      } catch (const ImageError&) {    // is met again, and told of, when it is decoded
      }
    }
    task_ = pool_.submit(static_cast<int>(n), job);
  }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  ~Batch() {
    if (!task_) return;
    py::gil_scoped_release release;
    pool_.cancel(*task_);
  }

  // Until it is done: the errors as (i, message) pairs. A sample with an error leaves its pixels undefined.
  std::vector<std::pair<int, std::string>> wait() {
    {
      py::gil_scoped_release release;
      pool_.wait(*task_);
    }
    std::vector<std::pair<int, std::string>> failed;
    for (size_t i = 0; i < errors_.size(); ++i)
      if (!errors_[i].empty()) failed.emplace_back(static_cast<int>(i), errors_[i]);
    return failed;
  }

 private:
  Pool& pool_;
  std::vector<py::array> held_;
  std::vector<std::string> errors_;
  std::shared_ptr<Pool::Task> task_;
};

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
  m.def("isas", &isas);
  m.def("isa", &isa);
  m.def("set_isa", &set_isa, py::arg("name"));
  m.def("probe", &probe, py::arg("data"));
  m.def("read_coefficients", &read_coefficients, py::arg("data"), py::arg("x"), py::arg("y"), py::arg("w"), py::arg("h"));
  m.def("decode", &decode, py::arg("data"), py::arg("max_side"), py::arg("short_side"), py::arg("upright"));
  m.def("recode", &recode_bytes, py::arg("data"), py::arg("max_side"), py::arg("short_side"), py::arg("quality"),
        py::arg("upright"), py::arg("fit"), py::arg("subsampling"), py::arg("restart"));
  m.def("encode", &encode_array, py::arg("rgb"), py::arg("quality"), py::arg("subsampling"), py::arg("restart"));
  m.def("resize", &resize_array, py::arg("rgb"), py::arg("crop"), py::arg("width"), py::arg("height"));
  m.def("target_size", [](int max_side, int short_side, int width, int height) {
    int w, h;
    target_size({max_side, short_side}, width, height, &w, &h);
    return py::make_tuple(w, h);
  });
  py::class_<Pool>(m, "Pool")
      .def(py::init<int>(), py::arg("threads"))
      .def_property_readonly("threads", &Pool::threads);
  py::class_<Buffers>(m, "Buffers").def(py::init<const std::vector<py::buffer>&>(), py::arg("buffers"));
  py::class_<Batch>(m, "Batch")
      .def(py::init<Pool&, const Buffers&, Column<int32_t>, Column<uint64_t>, Column<uint64_t>, Column<uint8_t>,
                    Column<int32_t>, Column<int32_t>, Column<uint8_t>>(),
           py::arg("pool"), py::arg("buffers"), py::arg("shard"), py::arg("offset"), py::arg("size"), py::arg("raw"),
           py::arg("dims"), py::arg("crops"), py::arg("out"), py::keep_alive<1, 2>(), py::keep_alive<1, 3>())
      .def("wait", &Batch::wait);
}
