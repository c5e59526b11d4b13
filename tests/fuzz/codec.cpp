// libFuzzer target: probe, decode, crop, recode, encode and resize. Built with AddressSanitizer and UBSan.
#include "libfuzzer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::execute(data, size);
  return 0;
}
