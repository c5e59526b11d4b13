"""Writes ffcv.beton.xz beside this file with stock FFCV 1.0.2: python tests/pipelines/shards/data/write_with_ffcv.py

The tests compare our reader and writer with this file, so they run without FFCV. The images are flat colours and ramps;
four are large, so that the samples span several pages. All of them compress to a few kB.
"""

import lzma
import tempfile
from pathlib import Path

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter

SIZES = [(40, 30), (7000, 5000), (6000, 6000), (33, 47), (5000, 7000), (6000, 6500), (64, 64)]  # width, height


class Images:
    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        width, height = SIZES[i]
        pixels = np.full((height, width, 3), (30 * i, 255 - 30 * i, 128), np.uint8)
        pixels[:20, :20] = np.arange(20, dtype=np.uint8)[:, None] * 12
        return pixels, 100 * i - 50


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ffcv.beton"
        fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=90), "label": IntField()}
        DatasetWriter(str(path), fields, page_size=1 << 21, num_workers=1).from_indexed_dataset(Images())
        compressed = lzma.compress(path.read_bytes(), preset=9)
    Path(__file__).with_name("ffcv.beton.xz").write_bytes(compressed)
