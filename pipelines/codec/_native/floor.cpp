// What the compiler's headers call that libstdc++ and glibc have only had since 2021: defined here, so that a wheel
// built on Debian 12 runs on systems as old as torch does (manylinux_2_24 instead of 2_35).
#include <condition_variable>
#include <mutex>
#include <new>

#if defined(__GLIBCXX__) && _GLIBCXX_RELEASE >= 12 && _GLIBCXX_RELEASE <= 15  // as far as this was looked up
#include <pthread.h>

extern "C" {
extern char __libc_single_threaded;
char __libc_single_threaded = 0;    // no: std::shared_ptr then counts atomically
}

namespace std {

void __throw_bad_array_new_length() { throw bad_array_new_length(); }

void condition_variable::wait(unique_lock<mutex>& lock) {
  pthread_cond_wait(native_handle(), lock.mutex()->native_handle());
}

}  // namespace std
#endif
