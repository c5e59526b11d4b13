// A fixed set of threads that decode the crops of a batch.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "picture.hpp"

namespace imgtool {

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  // Calls job(worker, i) for i in [0, n), each once, on the pool's threads; returns when all are done.
  // The job must not throw. One run at a time.
  void run(int n, const std::function<void(Worker&, int)>& job);
  int threads() const { return static_cast<int>(threads_.size()); }

 private:
  void work();
  std::vector<std::thread> threads_;
  std::mutex mutex_, run_mutex_;
  std::condition_variable start_, done_;
  const std::function<void(Worker&, int)>* job_ = nullptr;
  std::atomic<int> next_{0};
  int n_ = 0, busy_ = 0;
  uint64_t generation_ = 0;
  bool stop_ = false;
};

}  // namespace imgtool
