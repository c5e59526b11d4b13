// Executes the files that are given, each with a few settings, or as they are if they end in settings: replay FILE...
#include <fstream>
#include <iterator>

#include "execute.hpp"
#include "mutate.hpp"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    fuzz::Bytes bytes((std::istreambuf_iterator<char>(file)), {});
    fuzz::execute(bytes.data(), bytes.size());
    std::minstd_rand random(static_cast<uint32_t>(i));
    for (uint8_t operation = 0; operation < 64; ++operation) {
      fuzz::Bytes input = bytes;
      input.push_back(operation);
      for (size_t k = 1; k < fuzz::kSettings; ++k) input.push_back(static_cast<uint8_t>(random() >> 8));
      fuzz::execute(input.data(), input.size());
    }
  }
}
