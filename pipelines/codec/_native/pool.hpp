// A fixed set of threads that work through tasks, one after the other without a pause in between.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "image.hpp"

namespace imgtool {

class Pool {
 public:
  // job(worker, i) for i in [0, n), each once. The job must not throw.
  struct Task {
    std::function<void(Worker&, int)> job;
    int n, next = 0, done = 0;
  };

  // Throws std::invalid_argument for less than one, std::runtime_error where the system gives no more threads.
  explicit Pool(int threads);
  // Finishes what has begun, and drops the rest.
  ~Pool();
  // Puts a task behind those submitted before.
  std::shared_ptr<Task> submit(int n, std::function<void(Worker&, int)> job);
  // Until all of the task is done.
  void wait(Task& task);
  // Drops what has not begun of it, and waits for what has.
  void cancel(Task& task);
  int threads() const { return static_cast<int>(threads_.size()); }

 private:
  void work();
  void stop();
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::deque<std::shared_ptr<Task>> queue_;    // those that have jobs to begin
  bool stop_ = false;
};

}  // namespace imgtool
