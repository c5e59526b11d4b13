"""Compares an exported model with its checkpoint on real images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from imgtool.pipelines import codec
from imgtool.pipelines.codec.transform import ValTransform
from imgtool.training.runtimes.runtime import Runtime
from imgtool.wordnet.errors import CheckpointError

# The largest absolute difference that passes as rounding:
FULL, HALF = 1e-3, 2e-2  # of logits, relative to the largest logit (at least 1)
PROBABILITY = 5e-2  # of probabilities, if the model resizes the images itself: its pixels may differ by one grey level
AGREEMENT = 0.75  # for int8 instead: the share of images that must get the same top-1 class


@dataclass(frozen=True)
class ExportCheck:
    """How far an exported model is from its checkpoint. The fields are keys of ``imgtool export --json``."""

    difference: float  # the largest absolute one
    limit: float | None  # of the difference; None for int8, where the top-1 classes are compared instead
    of: str  # what is compared: logits or probability
    same: int  # images with the same top-1 class
    images: int
    drawn: bool  # the images are synthetic, because no real ones were found

    @property
    def passed(self) -> bool:
        """Whether the export may be kept. A NaN difference does not pass."""
        if self.limit is None:
            return self.same >= AGREEMENT * self.images
        return self.difference <= self.limit

    @property
    def failure(self) -> str:
        """Which condition failed and by how much; empty if the check passed."""
        if self.passed:
            return ""
        if self.limit is None:
            return (
                f"the top-1 class is the same on {self.same} of {self.images} images ({self.same / self.images:.0%}), "
                f"and {AGREEMENT:.0%} are required"
            )
        if not math.isfinite(self.difference):
            return f"it gives NaN or infinite values (the largest difference in {self.of} is {self.difference})"
        return (
            f"the largest difference in {self.of} is {self.difference:.2g}, "
            f"{self.difference / self.limit:.2g} times the limit of {self.limit:.2g}"
        )

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" (limit {self.limit:.2g})"
        required = f" ({AGREEMENT:.0%} required)" if self.limit is None else ""
        kind = "synthetic images (no real ones found)" if self.drawn else "images"
        return (
            f"largest difference from the checkpoint {self.difference:.2g} in {self.of}{limit}, "
            f"same top-1 class on {self.same} of {self.images} {kind}{required}"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


@torch.inference_mode()
def check(
    native: Callable[[Tensor], Tensor],
    exported: Runtime,
    images: Sequence[codec.Pixels],
    transform: ValTransform,
    precision: Literal["full", "half", "int8"],
    synthetic: bool = False,
) -> ExportCheck:
    """Compares an export with its checkpoint's network on images uint8 [H, W, 3] of any size.

    ``native`` is that network: uint8 images [N, 3, imgsz, imgsz] → logits. Raises CheckpointError without an image and
    for an export whose outputs have another shape.
    """
    if not images:
        raise CheckpointError("there is no image to check the export on")
    batch = torch.from_numpy(np.stack([transform(pixels) for pixels in images])).permute(0, 3, 1, 2)
    expected = native(batch).float()
    if exported.input.is_uint8:
        got = torch.cat([exported.forward_untransformed(torch.from_numpy(np.array(pixels))[None]) for pixels in images])
        expected, got, compared = expected.softmax(dim=1), got.softmax(dim=1), "probability"
        limit: float | None = PROBABILITY
    else:
        got, compared = exported(batch.to(exported.device)).cpu(), "logits"
        limit = (HALF if precision == "half" else FULL) * max(1.0, float(expected.abs().max()))
    if got.shape != expected.shape:
        raise CheckpointError(f"the export gives {list(got.shape)} where the checkpoint gives {list(expected.shape)}")
    same = int((expected.argmax(dim=1) == got.argmax(dim=1)).sum())
    difference = float((expected - got).abs().max())
    if precision == "int8":
        limit = None
    return ExportCheck(difference, limit, compared, same, len(images), synthetic)
