// Executes every prefix of the files that are given, with and without an end marker: truncate SECONDS FILE...
#include <chrono>
#include <fstream>
#include <iterator>

#include "execute.hpp"
#include "mutate.hpp"

int main(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  const auto stop = Clock::now() + std::chrono::duration<double>(std::atof(argv[1]));
  long executions = 0;
  int files = 0;
  for (int i = 2; i < argc && Clock::now() < stop; ++i, ++files) {
    std::ifstream file(argv[i], std::ios::binary);
    const fuzz::Bytes bytes((std::istreambuf_iterator<char>(file)), {});
    for (size_t size = 1; size <= bytes.size() && Clock::now() < stop; ++size)
      for (uint8_t operation = 0; operation < 5; ++operation)
        for (int marked = 0; marked < 2; ++marked, ++executions) {
          fuzz::Bytes input(bytes.begin(), bytes.begin() + static_cast<long>(size));
          if (marked) input.insert(input.end(), {0xFF, 0xD9});
          const auto varied = static_cast<uint8_t>(size);
          input.insert(input.end(), {operation, varied, 90, varied, varied, 9, 9, 200, 200, varied, 0, 0, 3, 3, varied, 0});
          fuzz::execute(input.data(), input.size());
        }
  }
  std::printf("%ld executions, %d of %d files\n", executions, files, argc - 2);
}
