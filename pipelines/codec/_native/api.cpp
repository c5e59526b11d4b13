// The codec's C interface, which _native.py calls through ctypes. It does not use Python's API, so that one library
// works with every version of Python. Functions return 0 or a Status; codec_error() has the message.
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "isa.hpp"
#include "image.hpp"
#include "markers.hpp"
#include "pool.hpp"
#include "recode.hpp"

#define API extern "C" __attribute__((visibility("default")))

using namespace imgtool;

namespace {

enum Status { OK, IMAGE_ERROR, NO_MEMORY, BAD_VALUE, FAILED };

thread_local std::string last_error;

template <class Work>
int32_t guarded(Work&& work) noexcept {
  try {
    work();
    return OK;
  } catch (const ImageError& e) {
    last_error = e.what();
    return IMAGE_ERROR;
  } catch (const std::bad_alloc&) {
    last_error = "out of memory";
    return NO_MEMORY;
  } catch (const std::invalid_argument& e) {
    last_error = e.what();
    return BAD_VALUE;
  } catch (const std::exception& e) {
    last_error = e.what();
    return FAILED;
  }
}

int narrow(int64_t value) {
  if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max())
    throw std::invalid_argument(std::to_string(value) + " is out of range");
  return static_cast<int>(value);
}

Coding coding_of(int64_t quality, int32_t h_samp, int32_t v_samp, int64_t restart) {
  if (quality < 1 || quality > 100)
    throw std::invalid_argument("quality must be from 1 to 100, not " + std::to_string(quality));
  if (h_samp < 1 || h_samp > 2 || v_samp < 1 || v_samp > h_samp)
    throw std::invalid_argument("unsupported subsampling: factors " + std::to_string(h_samp) + ", " +
                                std::to_string(v_samp));
  if (restart < 0 || restart > 65535)
    throw std::invalid_argument("a restart interval must be from 0 to 65535 MCUs, not " + std::to_string(restart));
  return {static_cast<int>(quality), {h_samp, v_samp}, static_cast<int>(restart)};
}

// One per calling thread, to use its buffers again.
Worker& local_worker() {
  thread_local Worker worker;
  return worker;
}

// Header with fixed-size fields, for ctypes.
struct Fields {
  int32_t width, height, components, space, progressive, orientation, h_samp, v_samp;
};

Fields fields_of(const Header& h) {
  return {h.width, h.height, h.components, h.space, h.progressive, h.orientation, h.h_samp, h.v_samp};
}

// An image, pixels or a JPEG. The caller passes it in with zeros, and in the end to codec_release().
struct Result {
  const uint8_t* data;
  uint64_t size;
  int32_t width, height, damaged;
  const char* how;
  Fields source;
  void* owner;
  void (*release)(void*);
};

template <class Container>
void hand_over(Container&& made, Result* out) {
  auto* owner = new std::decay_t<Container>(std::move(made));
  out->data = reinterpret_cast<const uint8_t*>(owner->data());
  out->size = owner->size();
  out->owner = owner;
  out->release = [](void* p) { delete static_cast<std::decay_t<Container>*>(p); };
}

Crop to_crop(const int32_t* c) { return {c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8] != 0}; }

struct Bytes {
  const uint8_t* data;
  size_t size;
};

// The buffers that samples are read from: memory-mapped shards.
struct Buffers {
  const uint8_t* const* data;
  const uint64_t* sizes;
  int64_t count;

  Bytes at(int shard, uint64_t offset, uint64_t size) const {
    if (shard < 0 || shard >= count) throw ImageError("no such shard");
    if (offset > sizes[shard] || size > sizes[shard] - offset) throw ImageError("the sample is outside its shard");
    return {data[shard] + offset, static_cast<size_t>(size)};
  }
};

// The location of each sample of a batch, its crop, and the memory for the pixels.
struct Samples {
  int64_t count;
  const int32_t* shard;
  const uint64_t *offset, *size;
  const uint8_t* raw;
  const int32_t *dims, *crops;
  uint8_t* out;
  int32_t out_w, out_h;
};

// Asks the system to read a sample into memory before it is decoded.
void read_ahead(const Bytes& bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(bytes.data) / page * page;
  madvise(reinterpret_cast<void*>(begin), reinterpret_cast<uintptr_t>(bytes.data) + bytes.size - begin, MADV_WILLNEED);
}

// A batch that the pool's threads decode. The memory that they read and write must outlive it.
class Batch {
 public:
  Batch(Pool& pool, const Buffers& buffers, const Samples& samples)
      : pool_(pool), errors_(static_cast<size_t>(samples.count)) {
    const size_t pixels = 3 * static_cast<size_t>(samples.out_h) * samples.out_w;
    auto job = [this, buffers, s = samples, pixels](Worker& worker, int i) {
      try {
        const Bytes bytes = buffers.at(s.shard[i], s.offset[i], s.size[i]);
        const Crop crop = to_crop(s.crops + 9 * i);
        auto decode = s.raw[i] ? crop_raw : decode_crop;
        decode(worker, bytes.data, bytes.size, s.dims[2 * i], s.dims[2 * i + 1], crop, s.out + pixels * i, s.out_w,
               s.out_h);
      } catch (const std::exception& e) {
        errors_[static_cast<size_t>(i)] = *e.what() ? e.what() : "unknown error";
      }
    };
    for (int64_t i = 0; i < samples.count; ++i) {
      try {
        read_ahead(buffers.at(samples.shard[i], samples.offset[i], samples.size[i]));
      } catch (const ImageError&) {    // reported when the sample is decoded
      }
    }
    task_ = pool_.submit(narrow(samples.count), job);
  }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  ~Batch() {
    if (task_) pool_.cancel(*task_);
  }

  // Waits until it is done and returns how many samples failed. The pixels of these are undefined.
  int64_t wait() {
    pool_.wait(*task_);
    int64_t failed = 0;
    for (const std::string& error : errors_) failed += !error.empty();
    return failed;
  }

  const char* error(int64_t i) const { return errors_[static_cast<size_t>(i)].c_str(); }

 private:
  Pool& pool_;
  std::vector<std::string> errors_;
  std::shared_ptr<Pool::Task> task_;
};

}  // namespace

// The message of the calling thread's last failed call.
API const char* codec_error() { return last_error.c_str(); }

IMGTOOL_ISA_API(codec)

API int32_t codec_probe(const uint8_t* data, uint64_t size, Fields* out) {
  return guarded([&] {
    *out = fields_of(local_worker().decoder.open(data, size));
    local_worker().decoder.end();
  });
}

API int32_t codec_decode(const uint8_t* data, uint64_t size, int64_t max_side, int64_t short_side, bool upright,
                         Result* out) {
  return guarded([&] {
    Image image =
        decode_image(local_worker(), data, size, {narrow(max_side), narrow(short_side)}, upright);
    out->width = image.width, out->height = image.height, out->damaged = image.damaged;
    hand_over(std::move(image.rgb), out);
  });
}

// Returns whether a JPEG has an end marker.
API bool codec_has_end(const uint8_t* data, uint64_t size) { return end_of_image(data, size).at; }

// Returns the orientation in EXIF data without the segment's header, or 1.
API int32_t codec_orientation(const uint8_t* tiff, uint64_t size) { return exif_orientation(tiff, size); }

// Sets `read` to whether the coefficients could be read.
API int32_t codec_read_coefficients(const uint8_t* data, uint64_t size, int32_t x, int32_t y, int32_t w, int32_t h,
                                    bool* read) {
  return guarded([&] {
    Decoder& decoder = local_worker().decoder;
    const Header& header = decoder.open(data, size);
    if (x < 0 || y < 0 || w < 1 || h < 1 || w > header.width - x || h > header.height - y)
      throw ImageError("the crop is not inside the image");
    *read = decoder.read_coefficients(x, y, w, h);
    decoder.end();
  });
}

API int32_t codec_recode(const uint8_t* data, uint64_t size, int64_t max_side, int64_t short_side, int64_t quality,
                         bool upright, int32_t keep, int32_t h_samp, int32_t v_samp, int64_t restart, Result* out) {
  return guarded([&] {
    Stored stored = recode(local_worker(), data, size, {narrow(max_side), narrow(short_side)},
                           coding_of(quality, h_samp, v_samp, restart), upright, static_cast<Keep>(keep));
    out->width = stored.width, out->height = stored.height, out->damaged = stored.damaged;
    out->how = stored.how;
    out->source = fields_of(stored.source);
    hand_over(std::move(stored.data), out);
  });
}

API int32_t codec_encode(const uint8_t* rgb, int64_t width, int64_t height, int64_t quality, int32_t h_samp,
                         int32_t v_samp, int64_t restart, Result* out) {
  return guarded([&] {
    hand_over(encode(rgb, narrow(width), narrow(height), 3 * static_cast<size_t>(width),
                     coding_of(quality, h_samp, v_samp, restart)),
              out);
  });
}

API void codec_release(Result* result) {
  if (result->owner) result->release(result->owner);
}

API int32_t codec_resize(const uint8_t* rgb, int64_t width, int64_t height, const int32_t* crop, uint8_t* out,
                         int64_t out_w, int64_t out_h) {
  return guarded([&] {
    resize_crop(local_worker(), rgb, narrow(width), narrow(height), to_crop(crop), out, narrow(out_w), narrow(out_h));
  });
}

API int32_t codec_target_size(int64_t max_side, int64_t short_side, int64_t width, int64_t height, int32_t* out) {
  return guarded([&] {
    target_size({narrow(max_side), narrow(short_side)}, narrow(width), narrow(height), out, out + 1);
  });
}

API int32_t codec_pool_new(int64_t threads, Pool** out) {
  return guarded([&] { *out = new Pool(narrow(threads)); });
}

API void codec_pool_delete(Pool* pool) { delete pool; }

API int32_t codec_batch_new(Pool* pool, const Buffers* buffers, const Samples* samples, Batch** out) {
  return guarded([&] { *out = new Batch(*pool, *buffers, *samples); });
}

API int64_t codec_batch_wait(Batch* batch) { return batch->wait(); }

API const char* codec_batch_error(const Batch* batch, int64_t i) { return batch->error(i); }

API void codec_batch_delete(Batch* batch) { delete batch; }
