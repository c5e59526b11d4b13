// Batch norm and SiLU in one operation, for training on the CPU: float32, channels_last. A row is one pixel's channels.
//
// As two operations they read or write the activations thirteen times per step; as one, eight times, and the backward
// pass needs one saved tensor instead of two. Rows are processed in chunks that fit the cache. The chunks' sums are
// added in a fixed order, so the result does not depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../../pipelines/codec/_native/isa.hpp"

#define API extern "C" __attribute__((visibility("default")))

using namespace imgtool;

namespace {

constexpr int LANES = 8;          // the number of channels is a multiple of this
constexpr int64_t CHUNK = 16384;  // floats: 64 KiB
constexpr int64_t MAX_ROWS = 512;  // per chunk, so that float32 sums stay accurate

// Vectors as wide as the registers: gcc splits comparisons of wider vectors into single elements.
using f32x4 = float __attribute__((vector_size(16)));
using f32x8 = float __attribute__((vector_size(32)));

template <class F>
constexpr int lanes = sizeof(F) / sizeof(float);

template <class F>
IMGTOOL_INLINE F load(const float* from) {
  F v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class F>
IMGTOOL_INLINE void store(float* to, const F& v) { std::memcpy(to, &v, sizeof v); }

// 1 / (1 + 2^t), t = -z / ln 2. The integer part of t goes into the exponent's bits of 2^t; the rest, at most a half,
// into a Taylor series with an error of 1.2e-7.
template <class F>
IMGTOOL_INLINE F sigmoid(const F& z) {
  using Bits = decltype(z < z);
  constexpr float MAGIC = 12582912.0f;  // 1.5 · 2^23: added to a small number, rounds it to an integer
  F t = z * -1.4426950409f;
  t = t < -126.0f ? F{} - 126.0f : t;
  t = t > 126.0f ? F{} + 126.0f : t;
  const F shifted = t + MAGIC;
  const F f = t - (shifted - MAGIC);
  F p = f * 1.5403530e-4f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  Bits bits, exponent;
  std::memcpy(&bits, &p, sizeof bits);
  std::memcpy(&exponent, &shifted, sizeof exponent);
  bits += exponent << 23;
  std::memcpy(&p, &bits, sizeof p);
  return 1.0f / (1.0f + p);
}

// A chunk of rows of one group of channels. `x`, `dy` and `out` point to its first float. `step` (of x and out) and
// `dy_step` are the floats from one row to the next.
struct Rows {
  const float* x;
  const float* dy;
  float* out;
  int64_t count, step, dy_step;
};

// Values per channel of a group: two sums, and coefficients.
struct Channels {
  float *first, *second;  // sums
  const float *shift, *gain, *bias, *slope, *base;
};

// out = SiLU(x · gain + bias)
template <class F, int V>
IMGTOOL_INLINE void activate(const Rows& r, const Channels& c) {
  for (int64_t i = 0; i < r.count; ++i)
    for (int v = 0; v < V; ++v) {
      const F x = load<F>(r.x + i * r.step + lanes<F> * v);
      const F z = x * load<F>(c.gain + lanes<F> * v) + load<F>(c.bias + lanes<F> * v);
      store(r.out + i * r.step + lanes<F> * v, z * sigmoid(z));
    }
}

// The gradient for z = x · gain + bias, the input of SiLU: dy · s · (1 + z · (1 - s)), s = sigmoid(z).
template <class F, int V>
IMGTOOL_INLINE F gradient_of_z(const Rows& r, const Channels& c, int64_t i, int v, const F& x) {
  const F z = x * load<F>(c.gain + lanes<F> * v) + load<F>(c.bias + lanes<F> * v);
  const F s = sigmoid(z);
  return load<F>(r.dy + i * r.dy_step + lanes<F> * v) * s * (1.0f + z * (1.0f - s));
}

// Sums of a value and of its product with x - shift. The value is the gradient for z, or x - shift itself. The shift
// avoids cancellation in the variance when the mean is far from zero.
template <class F, int V, bool GRADIENT>
IMGTOOL_INLINE void sums(const Rows& r, const Channels& c) {
  F sum[V] = {}, product[V] = {};
  for (int64_t i = 0; i < r.count; ++i)
    for (int v = 0; v < V; ++v) {
      const F x = load<F>(r.x + i * r.step + lanes<F> * v), d = x - load<F>(c.shift + lanes<F> * v);
      F value = d;
      if constexpr (GRADIENT) value = gradient_of_z<F, V>(r, c, i, v, x);
      sum[v] += value;
      product[v] += value * d;
    }
  for (int v = 0; v < V; ++v) {
    store(c.first + lanes<F> * v, sum[v]);
    store(c.second + lanes<F> * v, product[v]);
  }
}

template <class F, int V>
IMGTOOL_INLINE void moments(const Rows& r, const Channels& c) { sums<F, V, false>(r, c); }

template <class F, int V>
IMGTOOL_INLINE void gradients(const Rows& r, const Channels& c) { sums<F, V, true>(r, c); }

// out = gradient for z · gain + x · slope + base
template <class F, int V>
IMGTOOL_INLINE void descend(const Rows& r, const Channels& c) {
  for (int64_t i = 0; i < r.count; ++i)
    for (int v = 0; v < V; ++v) {
      const F x = load<F>(r.x + i * r.step + lanes<F> * v);
      const F line = x * load<F>(c.slope + lanes<F> * v) + load<F>(c.base + lanes<F> * v);
      const F dz = gradient_of_z<F, V>(r, c, i, v, x);
      store(r.out + i * r.step + lanes<F> * v, dz * load<F>(c.gain + lanes<F> * v) + line);
    }
}

// Applies a function to all channels, in groups of four, two or one vectors.
template <class F, auto of_four, auto of_two, auto of_one>
IMGTOOL_INLINE void over_channels(Rows r, Channels c, int64_t channels) {
  constexpr int N = lanes<F>;
  for (int64_t left = channels, width; left > 0; left -= width) {
    width = left >= 4 * N ? 4 * N : left >= 2 * N ? 2 * N : N;
    if (width == 4 * N)
      of_four(r, c);
    else if (width == 2 * N)
      of_two(r, c);
    else
      of_one(r, c);
    r.x += width, r.dy += width, r.out += width, c.first += width, c.second += width;
    c.shift += width, c.gain += width, c.bias += width, c.slope += width, c.base += width;
  }
}

using OverChannels = void (*)(Rows, Channels, int64_t);

#define OVER_CHANNELS(F, function) over_channels<F, function<F, 4>, function<F, 2>, function<F, 1>>
#define KERNEL(function) Kernel<OVER_CHANNELS(f32x4, function), OVER_CHANNELS(f32x8, function)>::run
constexpr OverChannels all_moments = KERNEL(moments), all_activate = KERNEL(activate),
                       all_gradients = KERNEL(gradients), all_descend = KERNEL(descend);

// Functions of torch's OpenMP runtime, by their GNU names, which LLVM's and Intel's runtimes have too. This library is
// not linked to OpenMP: a second runtime would start its own threads beside torch's.
struct {
  void (*parallel)(void (*work)(void*), void* data, unsigned threads, unsigned flags);
  int (*thread)();
  int (*threads)();
} openmp;

struct Work {
  int64_t rows, channels;
  int threads;
  int64_t chunk = std::clamp<int64_t>(CHUNK / channels, 8, MAX_ROWS);
  int64_t chunks = (rows + chunk - 1) / chunk;

  // Calls the kernel on each chunk of rows, in parallel. If given, `sums` [chunks][2][channels] gets the chunks' sums.
  void each(OverChannels kernel, const Rows& all, const Channels& c, float* sums = nullptr) const {
    auto share = [&] {
      const int64_t part = openmp.thread(), parts = openmp.threads();
      for (int64_t i = chunks * part / parts; i < chunks * (part + 1) / parts; ++i) {
        const int64_t from = i * chunk;
        Rows r = all;
        Channels mine = c;
        r.x += from * r.step;
        r.dy += from * r.dy_step;
        r.out += from * r.step;
        r.count = std::min(chunk, rows - from);
        if (sums) mine.first = sums + 2 * i * channels, mine.second = mine.first + channels;
        kernel(r, mine, channels);
      }
    };
    openmp.parallel([](void* data) { (*static_cast<decltype(share)*>(data))(); }, &share, threads, 0);
  }

  // The two sums of each channel over all chunks, [2][channels].
  std::vector<double> total(const std::vector<float>& sums) const {
    std::vector<double> out(2 * channels, 0.0);
    for (int64_t i = 0; i < chunks; ++i)
      for (int64_t j = 0; j < 2 * channels; ++j) out[j] += sums[2 * i * channels + j];
    return out;
  }
};

}  // namespace

API int32_t norm_act_lanes() { return LANES; }

// Sets GOMP_parallel, omp_get_thread_num and omp_get_num_threads of torch's OpenMP. Must be called first.
API void norm_act_connect(decltype(openmp.parallel) parallel, decltype(openmp.thread) thread,
                          decltype(openmp.threads) threads) {
  openmp = {parallel, thread, threads};
}

// All arrays are contiguous float32: x, y [rows, channels], the others [channels]. Writes y, mean and invstd; updates
// running_mean and running_var.
API void norm_act_forward(const float* x, float* y, const float* weight, const float* bias, float* running_mean,
                          float* running_var, float* mean, float* invstd, int64_t rows, int64_t channels, double eps,
                          double momentum, int32_t threads) {
  const Work work{rows, channels, threads};
  std::vector<float> sums(2 * work.chunks * channels), shift(x, x + channels), gain(channels), base(channels);
  Rows all{x, x, y, rows, channels, channels};
  Channels c{gain.data(), gain.data(), shift.data(), gain.data(), base.data(), gain.data(), base.data()};
  work.each(all_moments, all, c, sums.data());
  const std::vector<double> total = work.total(sums);
  for (int64_t j = 0; j < channels; ++j) {
    const double off = total[j] / rows, m = shift[j] + off;
    const double variance = std::max(0.0, total[channels + j] / rows - off * off);
    const double inverse = 1 / std::sqrt(variance + eps);
    mean[j] = m;
    invstd[j] = inverse;
    gain[j] = weight[j] * inverse;
    base[j] = bias[j] - m * gain[j];
    running_mean[j] += momentum * (m - running_mean[j]);
    running_var[j] += momentum * (variance * rows / (rows - 1) - running_var[j]);
  }
  work.each(all_activate, all, c);
}

// Arrays as in norm_act_forward, but the rows of dy [rows, channels] are dy_step floats apart. Writes dx, dweight and
// dbias.
API void norm_act_backward(const float* x, const float* dy, int64_t dy_step, float* dx, const float* weight,
                           const float* bias, const float* mean, const float* invstd, float* dweight, float* dbias,
                           int64_t rows, int64_t channels, int32_t threads) {
  const Work work{rows, channels, threads};
  std::vector<float> sums(2 * work.chunks * channels), gain(channels), base(channels), slope(channels), line(channels);
  for (int64_t j = 0; j < channels; ++j) {
    gain[j] = weight[j] * invstd[j];
    base[j] = bias[j] - double(mean[j]) * gain[j];
  }
  Rows all{x, dy, dx, rows, channels, dy_step};
  Channels c{gain.data(), gain.data(), mean, gain.data(), base.data(), slope.data(), line.data()};
  work.each(all_gradients, all, c, sums.data());
  const std::vector<double> total = work.total(sums);
  for (int64_t j = 0; j < channels; ++j) {
    const double inverse = invstd[j], sum = total[j], product = total[channels + j];
    dbias[j] = sum;
    dweight[j] = product * inverse;
    const double k = -gain[j] * inverse * inverse * product / rows;
    slope[j] = k;
    line[j] = -gain[j] * sum / rows - k * mean[j];
  }
  work.each(all_descend, all, c);
}

IMGTOOL_ISA_API(norm_act)
