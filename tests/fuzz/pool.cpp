// The pool under ThreadSanitizer: several submitters, jobs that fail, waits, cancels and an early end:
// pool SECONDS FILE...
#include "pool.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "recode.hpp"

using namespace imgtool;

namespace {

constexpr int kSide = 32, kTasks = 12;

struct File {
  std::vector<uint8_t> bytes;
  int width = 8, height = 8;
};

std::vector<File> read_files(int argc, char** argv) {
  std::vector<File> files;
  Worker worker;
  std::mt19937 random(7);
  for (int i = 2; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    File file;
    file.bytes.assign(std::istreambuf_iterator<char>(in), {});
    try {
      const Header& header = worker.decoder.open(file.bytes.data(), file.bytes.size());
      file.width = header.width, file.height = header.height;
    } catch (const ImageError&) {
    }
    files.push_back(file);
    for (int k = 0; k < 5; ++k) file.bytes[random() % file.bytes.size()] ^= static_cast<uint8_t>(1 << random() % 8);
    files.push_back(file);
    file.bytes.resize(file.bytes.size() / 2);
    files.push_back(file);
  }
  return files;
}

// The results of a task, which its threads write.
struct Results {
  std::vector<uint8_t> pixels;
  std::vector<std::string> errors;
};

std::atomic<long> jobs{0}, failed{0};

void decode(Worker& worker, const File& file, int i, uint8_t* out) {
  if (i % 4 == 3) {
    recode(worker, file.bytes.data(), file.bytes.size(), {i % 2 ? 20 : 0, 0}, {50 + i, {2, i % 3 ? 2 : 1}, i % 5 ? 0 : 4}, true,
           static_cast<Keep>(i % 3));
    return;
  }
  const Crop crop{0, 0, file.width, file.height, kSide, kSide, 0, 0, i % 2 == 0};
  decode_crop(worker, file.bytes.data(), file.bytes.size(), file.width, file.height, crop, out, kSide, kSide);
}

void one_round(int round, const std::vector<File>& files, std::mt19937& random) {
  std::vector<Results> results(kTasks);    // outlives the pool
  std::vector<std::shared_ptr<Pool::Task>> left(kTasks);
  Pool pool(1 + round % 5);
  std::vector<std::thread> submitters;
  for (int s = 0; s < 3; ++s)
    submitters.emplace_back([&, s, seed = random()] {
      std::mt19937 own(static_cast<uint32_t>(seed));
      for (int slot = s; slot < kTasks; slot += 3) {
        Results& made = results[static_cast<size_t>(slot)];
        const int n = static_cast<int>(own() % 24);            // also none
        made.pixels.assign(static_cast<size_t>(n + 1) * kSide * kSide * 3, 0);
        made.errors.assign(static_cast<size_t>(n + 1), "");
        auto task = pool.submit(n, [&made, &files, base = own()](Worker& worker, int i) {
          try {
            decode(worker, files[(base + static_cast<size_t>(i) * 7919) % files.size()], i,
                   made.pixels.data() + static_cast<size_t>(i) * kSide * kSide * 3);
          } catch (const std::exception& e) {
            made.errors[static_cast<size_t>(i)] = e.what();
            ++failed;
          }
          ++jobs;
        });
        const auto what = own() % 4;
        if (what == 1) std::this_thread::sleep_for(std::chrono::microseconds(own() % 300));
        if (what == 0) pool.wait(*task);
        if (what == 1 || what == 2) pool.cancel(*task);
        if (what == 3) left[static_cast<size_t>(slot)] = task;
        else for (const std::string& error : made.errors) failed += error == "never";    // reads what the threads wrote
      }
    });
  for (std::thread& thread : submitters) thread.join();
  for (auto& task : left) {
    if (task && round % 3 == 0) pool.wait(*task);
    if (task && round % 3 == 1) pool.cancel(*task);
  }                                        // otherwise the pool ends with work left
}

}  // namespace

int main(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  const auto stop = Clock::now() + std::chrono::duration<double>(std::atof(argv[1]));
  const std::vector<File> files = read_files(argc, argv);
  std::mt19937 random(11);
  int rounds = 0;
  while (Clock::now() < stop) one_round(rounds++, files, random);
  std::printf("%ld executions, %ld of them failed, in %d pools\n", jobs.load(), failed.load(), rounds);
}
