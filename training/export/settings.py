"""What is exported: size, batch, precision, transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class ExportSettings:
    """The options of one export that decide its graph."""

    imgsz: int
    batch: int | None = None  # images per call; None: any number
    half: bool = False  # float16 inside
    preprocess: bool = False  # validation transform and softmax inside: uint8 images of any size → probabilities
    int8: bool = False  # the graph is quantised after it is written

    @property
    def precision(self) -> Literal["full", "half", "int8"]:
        return "int8" if self.int8 else "half" if self.half else "full"

    def example(self) -> Tensor:
        """Returns an input of zeros to trace the model with.

        Without a fixed batch it has two images, because torch.export specialises on batches of 0 and 1.
        """
        count = self.batch or 2
        if self.preprocess:
            return torch.zeros(count, self.imgsz + 32, self.imgsz + 64, 3, dtype=torch.uint8)
        return torch.zeros(count, 3, self.imgsz, self.imgsz)

    def dynamic_shapes(self) -> dict[int, Any]:
        """Returns which dimensions of the input vary, as torch.export takes them."""
        shapes = {} if self.batch else {0: torch.export.Dim("batch")}
        if self.preprocess:
            shapes |= {1: torch.export.Dim("height", min=1), 2: torch.export.Dim("width", min=1)}
        return shapes
