"""Grids of images with captions: the first training batches, the most confident mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from imgtool.pipelines.storage.atomic import atomic_write
from imgtool.training.recipes.augment import Mixed

SMALLEST_TILE, LARGEST_TILE, GAP = 128, 224, 6  # pixels
FONT_SIZE = 12  # of the captions, in pixels
PAPER, INK, SOFT = (255, 255, 255), (28, 32, 36), (102, 112, 121)
BATCHES, IMAGES_PER_BATCH = 3, 16  # training batches that are drawn, and images of each


def save_mosaic(path: Path, images: Tensor, captions: Sequence[str]) -> None:
    """Writes ``images`` (uint8 [N, 3, H, W] on any device, N ≥ 1) as a near-square grid to a JPEG.

    ``captions`` has one caption per image, of one or more lines; a line wider than its image is truncated. Small images
    are enlarged by an integer factor without smoothing, so that their pixels are visible.

    Raises OSError when the file cannot be written.
    """
    pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    height, width = _tile(*pixels.shape[1:3])
    lines = [caption.split("\n") for caption in captions]
    strip = max(map(len, lines)) * (FONT_SIZE + 4) + 4
    columns = math.ceil(math.sqrt(len(pixels)))
    rows = math.ceil(len(pixels) / columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + strip + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    enlarged = height >= pixels.shape[1]
    for i, (tile, texts) in enumerate(zip(pixels, lines, strict=True)):
        x, y = GAP + i % columns * (width + GAP), GAP + i // columns * (height + strip + GAP)
        resampling = Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR
        sheet.paste(Image.fromarray(np.ascontiguousarray(tile)).resize((width, height), resampling), (x, y))
        for n, text in enumerate(texts):
            position = (x + 1, y + height + 3 + n * (FONT_SIZE + 4))
            draw.text(position, _shorten(text, width - 2), INK if n == 0 else SOFT, _font())
    with atomic_write(path) as temporary:
        sheet.save(temporary, "JPEG", quality=88)


def _tile(height: int, width: int) -> tuple[int, int]:
    """Returns the height and width at which images of this size are drawn."""
    longer = max(height, width)
    if longer > LARGEST_TILE:
        return max(round(height * LARGEST_TILE / longer), 1), max(round(width * LARGEST_TILE / longer), 1)
    factor = max(math.ceil(SMALLEST_TILE / longer), 1)
    return height * factor, width * factor


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns DejaVu Sans from matplotlib, which covers more alphabets than Pillow's default font."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", FONT_SIZE)


def _shorten(text: str, width: int) -> str:
    """Truncates ``text`` with an ellipsis to at most ``width`` pixels."""
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


class BatchMosaics:
    """Draws the first training batches as the network gets them: train_batch0.jpg, train_batch1.jpg, train_batch2.jpg.

    The loop calls it with every batch, after augmentation. For the first `BATCHES` batches of the first epoch it copies
    a few images from the device; after that a call does nothing. An error becomes a line in the log, and training
    continues.

    ``names`` are the names of the classes by index; ``say`` writes a line to the log.
    """

    def __init__(self, folder: Path, names: Sequence[str], say: Callable[[str], None]) -> None:
        self.folder, self.names, self.say = folder, names, say

    def __call__(self, epoch: int, step: int, images: Tensor, labels: Tensor, mixed: Mixed | None = None) -> None:
        """Takes ``epoch`` (from 0), ``step`` (from 1), ``images`` uint8 [N, 3, H, W] and ``labels`` int64 [N]."""
        if epoch > 0 or step > BATCHES:
            return
        path = self.folder / f"train_batch{step - 1}.jpg"
        try:
            save_mosaic(path, images[:IMAGES_PER_BATCH], batch_captions(self.names, labels[:IMAGES_PER_BATCH], mixed))
        except Exception as error:
            self.say(f"cannot draw {path}, training continues without it: {error}")


def batch_captions(names: Sequence[str], labels: Tensor, mixed: Mixed | None = None) -> list[str]:
    """Returns one caption per image: its class, or for mixed images both classes with their shares."""
    own = [names[label] for label in labels.tolist()]
    if mixed is None:
        return own
    other = [names[label] for label in mixed.other[: len(own)].tolist()]
    lam = torch.as_tensor(mixed.lam).expand(len(own)).tolist()
    rows = zip(own, other, lam, strict=True)
    return [f"{share:.0%} {first}\n{1 - share:.0%} {second}" for first, second, share in rows]
