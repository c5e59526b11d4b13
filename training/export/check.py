"""An export is held to its checkpoint, on the spot, on real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imgtool.pipelines import codec
from imgtool.pipelines.codec.transform import ValTransform
from imgtool.training.runtimes.runtime import Runtime
from imgtool.wordnet.errors import CheckpointError

# The largest difference that is rounding: of logits, as a part of the largest logit (and of 1 at least), …
FULL, HALF = 1e-3, 2e-2
PROBABILITY = 5e-2  # … of probabilities behind our own transform, whose pixels may differ by a grey level, …
AGREEMENT = 0.75  # … and of 8-bit integers only this can be asked: the share of images with the same first class


@dataclass(frozen=True)
class Check:
    """How far an exported model is from its checkpoint. ``difference`` is the largest, in ``of``, and ``limit`` what is
    allowed (None: anything); ``same`` of ``images`` have the same most probable class."""

    difference: float
    limit: float | None
    of: str
    same: int
    images: int
    drawn: bool  # on images that were made up, for want of real ones

    @property
    def passed(self) -> bool:
        """A difference that is not a number is none that is small enough."""
        if self.limit is None:
            return self.same >= AGREEMENT * self.images
        return self.difference <= self.limit

    def __str__(self) -> str:
        limit = f"(limit {self.limit:.2g})" if self.limit is not None else f"({AGREEMENT:.0%} must agree)"
        kind = "drawn images, as there are no real ones" if self.drawn else "images"
        return (
            f"largest difference from the checkpoint {self.difference:.2g} in {self.of} {limit}, "
            f"same class first on {self.same} of {self.images} {kind}"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


@torch.inference_mode()
def check(
    expected_of: Callable[[Tensor], Tensor],
    runtime: Runtime,
    images: Sequence[codec.Pixels],
    transform: ValTransform,
    precision: str,
    drawn: bool = False,
) -> Check:
    """Compares on images uint8 [H, W, 3]. ``expected_of`` is the checkpoint's network: uint8 images → logits.

    ``precision`` is full, half or int8. Raises CheckpointError without an image.
    """
    if not images:
        raise CheckpointError("there is no image to check the export on")
    batch = torch.from_numpy(np.stack([transform(pixels) for pixels in images])).permute(0, 3, 1, 2)
    expected = expected_of(batch).float()
    if runtime.takes.pixels:
        got = torch.cat([runtime.of_whole_images(torch.from_numpy(np.array(pixels))[None]) for pixels in images])
        expected, got, of = expected.softmax(dim=1), got.softmax(dim=1), "probability"
        limit: float | None = PROBABILITY
    else:
        got, of = runtime(batch.to(runtime.device)).cpu(), "logits"
        limit = (HALF if precision == "half" else FULL) * max(1.0, float(expected.abs().max()))
    if got.shape != expected.shape:
        raise CheckpointError(f"the export gives {list(got.shape)} where the checkpoint gives {list(expected.shape)}")
    same = int((expected.argmax(dim=1) == got.argmax(dim=1)).sum())
    difference = float((expected - got).abs().max())
    if precision == "int8":
        limit = None
    return Check(difference, limit, of, same, len(images), drawn)
