// An image that keeps its size, coded anew without leaving the DCT's domain.
#pragma once

#include <string>

#include "scan_reader.hpp"
#include "scan_writer.hpp"

namespace imgtool {

// Writes the scan that `reader` has opened, of width x height and with these steps a component, as a 4:2:0 image of this
// quality. False if it has to be decoded instead: not 4:4:4 or 4:2:0, or damaged.
bool requantise(ScanReader& reader, int width, int height, const Steps* from, const Coding& coding, std::string& out);

}  // namespace imgtool
