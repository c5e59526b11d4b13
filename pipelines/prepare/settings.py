"""The settings of a prepare: with the source's bytes, they determine the output."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import xxhash

from imgtool.pipelines import codec
from imgtool.pipelines.shards import FORMATS
from imgtool.wordnet.errors import ImageError, InputError
from imgtool.wordnet.graph.label_map import LabelMap


@dataclass(frozen=True)
class Settings:
    """How images are recoded, selected and packed. Raises InputError for settings that contradict each other.

    ``max_side``, ``short_side``: upper bounds of the longer and the shorter side in pixels, 0 for none. ``quality``:
    libjpeg's. ``store``: the stored form, see :func:`imgtool.pipelines.codec.recode`. ``subsampling``: of chroma,
    "420", "422" or "444". ``exif``: "apply" rotates images upright, "ignore" keeps the stored orientation.
    ``skip_smaller``: images whose shorter side has fewer pixels are skipped. ``shard_size``: in MB (10^6 bytes).
    ``classes``: a query for the classes to keep, "" for all; ``label_map`` maps them to other targets. ``real``:
    further wnids of an image by its key. ``limit``: at most this number of samples per split, chosen at random, 0 for
    all. ``holdout``: the number of train samples that become the split minival. ``val_fraction``: the fraction of each
    class of train that becomes the split val, for a source without one.
    """

    max_side: int = 500
    short_side: int = 0
    quality: int = 90
    store: str = "jpeg"
    subsampling: str = "420"
    exif: str = "apply"
    skip_smaller: int = 0
    seed: int = 0
    shard_size: int = 256
    format: str = "beton"
    classes: str = ""
    label_map: LabelMap | None = None
    real: dict[str, tuple[str, ...]] | None = None
    limit: int = 0
    holdout: int = 0
    val_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.store == "original" and (self.max_side or self.short_side):
            raise InputError(
                "store=original keeps the source's sizes and cannot bound a side: set max_side=0 and short_side=0"
            )
        if self.holdout and self.val_fraction:
            raise InputError("--split-holdout and --val-fraction both take samples from train: give only one of them")
        if not 0 <= self.val_fraction < 1:
            raise InputError(f"--val-fraction {self.val_fraction:g}: must be at least 0 and less than 1")
        if self.store == "raw" and "wds" in self.formats:
            raise InputError("WebDataset shards hold JPEG: use store=raw with format=beton only")

    @property
    def formats(self) -> tuple[str, ...]:
        return FORMATS[self.format]

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as dataset.json stores them: the label map in full, ``real`` as a digest."""
        out: dict[str, Any] = {f.name.replace("label_map", "labelmap"): getattr(self, f.name) for f in fields(self)}
        real = xxhash.xxh3_64_hexdigest(repr(sorted(self.real.items())).encode()) if self.real else None
        return out | {"labelmap": self.label_map.to_dict() if self.label_map else None, "real": real}

    def recode(self, data: bytes) -> codec.Recoded:
        """Recodes an image to its stored form. Raises ImageError if the image is to be skipped."""
        recoded = codec.recode(
            data,
            max_side=self.max_side,
            short_side=self.short_side,
            quality=self.quality,
            exif=self.exif == "apply",
            store=self.store,
            subsampling=self.subsampling,
        )
        if min(recoded.source_width, recoded.source_height) < self.skip_smaller:
            raise ImageError(f"smaller than {self.skip_smaller} pixels")
        return recoded
