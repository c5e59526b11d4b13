// Compiles kernels once per instruction set, and selects one version at run time.
#pragma once

#include <atomic>
#include <cstdint>

// IMGTOOL_PORTABLE builds without versions and intrinsics, for other processors and for sanitizers.
#if defined(__x86_64__) && !defined(IMGTOOL_PORTABLE)
#define IMGTOOL_ISAS
#endif
#define IMGTOOL_INLINE inline __attribute__((always_inline))

namespace imgtool {

enum class Isa { kDefault, kSse41, kAvx2 };
constexpr const char* kIsaNames[] = {"default", "sse4.1", "avx2"};

// The best instruction set that this CPU has.
inline Isa best_isa() {
#ifdef IMGTOOL_ISAS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::kAvx2;
  if (__builtin_cpu_supports("sse4.1")) return Isa::kSse41;
#endif
  return Isa::kDefault;
}

// The instruction set that kernels use.
inline std::atomic<Isa> current_isa{best_isa()};

// The C interface of a library, which isa.py calls: the name of the i-th instruction set that this CPU has, the best
// one last, or null; the name of the one in use; and a function that sets it.
#define IMGTOOL_ISA_API(library)                                                                               \
  API const char* library##_isa_name(int32_t i) {                                                             \
    return i >= 0 && i <= static_cast<int>(best_isa()) ? kIsaNames[i] : nullptr;                              \
  }                                                                                                           \
  API const char* library##_isa() { return kIsaNames[static_cast<int>(current_isa.load())]; }                 \
  API void library##_set_isa(int32_t i) { current_isa.store(static_cast<Isa>(i)); }

// run() calls an IMGTOOL_INLINE function as compiled for the current instruction set; with AVX2, whose registers have
// 32 bytes, it calls `wide`. The option -ffp-contract determines whether "avx2" uses fused multiplication and addition.
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
