"""What is to be exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """``batch`` None: of any size. ``preprocess``: from uint8 images of any size to probabilities. ``int8``: to be
    quantised."""

    imgsz: int
    batch: int | None = None
    half: bool = False
    preprocess: bool = False
    int8: bool = False

    def example(self) -> Tensor:
        """Images as the model takes them; two, where any number may come, as 1 and 0 are special to torch.export."""
        count = self.batch or 2
        if self.preprocess:
            return torch.zeros(count, self.imgsz + 32, self.imgsz + 64, 3, dtype=torch.uint8)
        return torch.zeros(count, 3, self.imgsz, self.imgsz)

    def dynamic_shapes(self) -> dict[int, Any]:
        """Which dimensions of it vary, for torch.export."""
        shapes = {} if self.batch else {0: torch.export.Dim("batch")}
        if self.preprocess:
            shapes |= {1: torch.export.Dim("height", min=1), 2: torch.export.Dim("width", min=1)}
        return shapes
