// The versions of a kernel, one per instruction set, of which one is chosen at run time.
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

// IMGTOOL_PORTABLE is for builds without versions and intrinsics: other processors than these, and sanitizers.
#if defined(__x86_64__) && !defined(IMGTOOL_PORTABLE)
#define IMGTOOL_ISAS
#endif
#define IMGTOOL_INLINE inline __attribute__((always_inline))

namespace imgtool {

enum class Isa { kDefault, kSse41, kAvx2 };
constexpr const char* kIsaNames[] = {"default", "sse4.1", "avx2"};

// The best that this CPU has.
inline Isa best_isa() {
#ifdef IMGTOOL_ISAS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::kAvx2;
  if (__builtin_cpu_supports("sse4.1")) return Isa::kSse41;
#endif
  return Isa::kDefault;
}

// The one that kernels use.
inline std::atomic<Isa> current_isa{best_isa()};

// The names of those that this CPU has, the best last.
inline std::vector<std::string> isas() { return {kIsaNames, kIsaNames + static_cast<int>(best_isa()) + 1}; }

inline std::string isa() { return kIsaNames[static_cast<int>(current_isa.load())]; }

// Throws std::invalid_argument for a name that isas() has not.
inline void set_isa(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(best_isa()); ++i)
    if (name == kIsaNames[i]) return current_isa.store(static_cast<Isa>(i));
  throw std::invalid_argument("no instruction set " + name + " on this CPU");
}

// run() calls an IMGTOOL_INLINE function as compiled for the current instruction set, `wide` where registers have 32
// bytes. Whether "avx2", which has fused multiplication and addition, uses it is for -ffp-contract to say.
template <auto body, auto wide = body>
struct Kernel;

template <class... Args, void (*body)(Args...), void (*wide)(Args...)>
struct Kernel<body, wide> {
#ifdef IMGTOOL_ISAS
  __attribute__((target("sse4.1"))) static void sse41(Args... args) { body(args...); }
  __attribute__((target("avx2,fma"))) static void avx2(Args... args) { wide(args...); }
#endif
  static void run(Args... args) {
#ifdef IMGTOOL_ISAS
    const Isa isa = current_isa.load(std::memory_order_relaxed);
    if (isa == Isa::kAvx2) return avx2(args...);
    if (isa == Isa::kSse41) return sse41(args...);
#endif
    body(args...);
  }
};

}  // namespace imgtool
