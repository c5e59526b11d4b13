#include "pool.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace imgtool {

Pool::Pool(int threads) {
  if (threads < 1) throw std::invalid_argument("a pool needs at least one thread, not " + std::to_string(threads));
  try {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  } catch (const std::exception& e) {
    stop();    // those that were started
    const auto* error = dynamic_cast<const std::system_error*>(&e);    // otherwise the memory is not enough
    throw std::runtime_error("cannot start " + std::to_string(threads) + " threads: " +
                             (error ? error->code().message() : "out of memory"));
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (auto& thread : threads_) thread.join();
}

std::shared_ptr<Pool::Task> Pool::submit(int n, std::function<void(Worker&, int)> job) {
  auto task = std::make_shared<Task>();
  task->job = std::move(job);
  task->n = n;
  if (n > 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(task);
  }
  start_.notify_all();
  return task;
}

void Pool::wait(Task& task) {
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [&task] { return task.done == task.n; });
}

void Pool::cancel(Task& task) {
  std::unique_lock<std::mutex> lock(mutex_);
  queue_.erase(std::remove_if(queue_.begin(), queue_.end(), [&task](const auto& t) { return t.get() == &task; }),
               queue_.end());
  task.n = task.next;
  done_.wait(lock, [&task] { return task.done == task.n; });
}

void Pool::work() {
  Worker worker;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    start_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    const std::shared_ptr<Task> task = queue_.front();
    const int i = task->next++;
    if (task->next == task->n) queue_.pop_front();
    lock.unlock();
    task->job(worker, i);
    lock.lock();
    if (++task->done == task->n) done_.notify_all();
  }
}

}  // namespace imgtool
