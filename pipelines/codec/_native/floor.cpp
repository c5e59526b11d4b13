// Defines symbols that the compiler's headers use but that libstdc++ and glibc have only had since 2021, so that a
// wheel built on Debian 12 runs on systems as old as those that torch supports (manylinux_2_24 instead of 2_35).
#include <condition_variable>
#include <mutex>
#include <new>

#if defined(__GLIBCXX__) && _GLIBCXX_RELEASE >= 12 && _GLIBCXX_RELEASE <= 15  // the versions this was checked for
#include <pthread.h>

extern "C" {
extern char __libc_single_threaded;
char __libc_single_threaded = 0;    // false: std::shared_ptr counts atomically
}

namespace std {

void __throw_bad_array_new_length() { throw bad_array_new_length(); }

void condition_variable::wait(unique_lock<mutex>& lock) {
  pthread_cond_wait(native_handle(), lock.mutex()->native_handle());
}

}  // namespace std
#endif
