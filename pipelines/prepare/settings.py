"""What shapes a data set besides its source's bytes."""

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
    """Sizes in pixels, 0 is no bound; ``shard_size`` in MB (10^6). Raises InputError for what does not go together.

    ``max_side``, ``short_side``: bounds of the longer and the shorter side. ``quality``: libjpeg's. ``store``: in which
    form, see :func:`imgtool.pipelines.codec.recode`. ``subsampling``: of chroma,
    "420", "422" or "444". ``exif``: "apply" turns images upright, "ignore" keeps them as they lie. ``skip_smaller``:
    images with a shorter side below it are skipped. ``classes``: a query for the classes to keep ("" for all);
    ``labelmap`` gathers them into other targets. ``real``: further wnids of an image, by its key. ``limit``: the most
    samples of a split (0 for all), chosen at random; ``holdout``: samples of train that become the split minival.
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
    labelmap: LabelMap | None = None
    real: dict[str, tuple[str, ...]] | None = None
    limit: int = 0
    holdout: int = 0

    def __post_init__(self) -> None:
        if self.store == "original" and (self.max_side or self.short_side):
            raise InputError("store original keeps the sizes of the source: set no bound on a side (max_side=0)")
        if self.store == "raw" and "wds" in self.formats:
            raise InputError("WebDataset shards hold JPEG: store raw goes with format beton alone")

    @property
    def formats(self) -> tuple[str, ...]:
        return FORMATS[self.format]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, as dataset.json has it: the label map in full, of ``real`` a digest."""
        out: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        real = xxhash.xxh3_64_hexdigest(repr(sorted(self.real.items())).encode()) if self.real else None
        return out | {"labelmap": self.labelmap.to_dict() if self.labelmap else None, "real": real}

    def recode(self, data: bytes) -> codec.Recoded:
        """An image as it is stored. Raises ImageError if it is to be skipped."""
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
