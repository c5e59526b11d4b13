#include "requantise.hpp"

#include <algorithm>

namespace imgtool {

bool requantise(ScanReader& reader, int width, int height, const Steps* from, const Coding& coding, std::string& out) {
  static thread_local ScanWriter writer;
  static thread_local BlockRow in[2][3], made[3];      // in[1]: the second row of MCUs, if two become one
  static thread_local ScanReader::Span spans[2];
  const bool halved = reader.h(0) == 1;
  for (int k = 0; k < 3; ++k) {
    const int factor = k == 0 && !halved ? 2 : 1;
    if (reader.h(k) != factor || reader.v(k) != factor) return false;
  }
  const Baseline& tables = Baseline::of(coding);
  const int mcus = (width + 15) / 16;
  Steps to[3];
  for (int k = 0; k < 3; ++k) {
    to[k].set(tables.steps(k));
    made[k].resize(k ? mcus : 2 * mcus, k ? 1 : 2);
  }
  for (int i = 0; i < 2; ++i) reader.assign(spans[i], 0, reader.mcus_x(), in[i]);
  const int across[3] = {(width + 7) / 8, mcus, mcus};
  out = tables.header(width, height);
  writer.begin(tables);
  int row = 0;
  for (int top = 0; top < height; top += 16) {
    const int down[3] = {(height - top + 7) / 8, 1, 1};
    const int rows = halved ? std::min(2, down[0]) : 1;
    for (int i = 0; i < rows; ++i)
      if (!reader.read_row(row++, spans[i])) return false;
    for (int y = 0; y < std::min(2, down[0]); ++y)
      requantise(halved ? in[y][0].at(0, 0) : in[0][0].at(0, y), from[0], to[0], across[0], made[0].at(0, y));
    for (int k = 1; k < 3; ++k) {
      if (!halved) {
        requantise(in[0][k].at(0, 0), from[k], to[k], mcus, made[k].at(0, 0));
        continue;
      }
      // If the image has an odd number of blocks, the missing last one is not visible; its neighbour is used instead.
      const BlockRow *above = &in[0][k], *below = &in[rows - 1][k];
      for (int x = 0; x < mcus; ++x) {
        const int a = 2 * x, b = std::min(2 * x + 1, reader.mcus_x() - 1);
        const int16_t *const top_pair[2] = {above->at(a, 0), above->at(b, 0)};
        const int16_t *const bottom_pair[2] = {below->at(a, 0), below->at(b, 0)};
        const int last = std::max({above->last_at(a, 0), above->last_at(b, 0), below->last_at(a, 0), below->last_at(b, 0)});
        halve(top_pair, bottom_pair, last, from[k], to[k], made[k].at(x, 0));
      }
    }
    writer.write_row(made, mcus, across, down);
  }
  writer.finish(out);
  return true;
}

}  // namespace imgtool
