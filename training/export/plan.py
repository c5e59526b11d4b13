"""What is to be exported, and small help that every format needs."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imgtool.wordnet.errors import InputError


@dataclass(frozen=True)
class Plan:
    """``batch`` None: of any size. ``preprocess``: from uint8 pictures of any size to probabilities. ``int8``: to be
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


def needs(*packages: str, extra: str) -> None:
    """Raises InputError, saying what to install, unless all packages are there."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} is not installed: pip install 'imgtool[{extra}]'")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters say of their own insides: deprecations, passes, versions of operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def first_line(error: BaseException) -> str:
    """Of an error that goes on for paragraphs."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
