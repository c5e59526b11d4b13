// A fixed number of threads that process tasks one after another, without a pause in between.
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
  // Runs job(worker, i) once for each i in [0, n). The job must not throw.
  struct Task {
    std::function<void(Worker&, int)> job;
    int n, next = 0, done = 0;
  };

  // Throws std::invalid_argument for less than one thread, std::runtime_error if the system does not allow that many.
  explicit Pool(int threads);
  // Finishes jobs that are running and drops the others.
  ~Pool();
  // Appends a task to the queue.
  std::shared_ptr<Task> submit(int n, std::function<void(Worker&, int)> job);
  // Waits until the task is done.
  void wait(Task& task);
  // Drops the jobs of the task that are not running yet, and waits for the others.
  void cancel(Task& task);

 private:
  void work();
  void stop();
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::deque<std::shared_ptr<Task>> queue_;    // tasks with jobs that are not running yet
  bool stop_ = false;
};

}  // namespace imgtool
