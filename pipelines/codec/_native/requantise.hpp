// Encodes an image again in the same size, without leaving the DCT domain.
#pragma once

#include <string>

#include "scan_reader.hpp"
#include "scan_writer.hpp"

namespace imgtool {

// Writes the scan that `reader` has opened as a 4:2:0 image with this coding. The image has width x height pixels, and
// `from` has the quantiser steps of each component. False if the image must be decoded instead: it is not 4:4:4 or
// 4:2:0, or it is damaged.
bool requantise(ScanReader& reader, int width, int height, const Steps* from, const Coding& coding, std::string& out);

}  // namespace imgtool
