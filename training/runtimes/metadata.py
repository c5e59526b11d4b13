"""What a model file says about itself: metadata inside it, so that nothing else is needed to predict with it."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from imgtool.wordnet.errors import CheckpointError
from imgtool.wordnet.imagenet.class_names import ilsvrc2012_wnids_of
from imgtool.wordnet.tables.nouns import is_wnid

LOGITS, PROBABILITIES = "logits", "probabilities"
FLOAT_INPUT, UINT8_INPUT = "float32 [N, 3, imgsz, imgsz], RGB, 0..1", "uint8 [N, H, W, 3], RGB"


@dataclass(frozen=True)
class ModelMetadata:
    """Of one exported model. ``wnids`` and ``names`` are in the order of its outputs, and empty where it has none;
    ``input`` is FLOAT_INPUT or UINT8_INPUT, ``batch`` its N (None: any), ``output`` LOGITS or PROBABILITIES;
    ``metrics`` are the checkpoint's. What is not known of another program's model is None."""

    size: str
    imgsz: int | None
    wnids: list[str]
    names: list[str]
    input: str
    output: str | None
    batch: int | None = None
    transform: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    imgtool: str | None = None

    def to_strings(self) -> dict[str, str]:
        """For a format whose metadata are pairs of strings: each value as JSON."""
        return {field.name: json.dumps(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_strings(cls, stored: Mapping[str, str]) -> ModelMetadata:
        """The inverse; of another program's metadata what can be told: Ultralytics' names and image size.

        Raises CheckpointError for metadata of imgtool's that are damaged.
        """
        if "imgtool" in stored:
            try:
                about = cls(**{field.name: json.loads(stored[field.name]) for field in fields(cls)})
                whole = len(about.wnids) == len(about.names) and all(isinstance(n, str) for n in about.names)
            except (KeyError, TypeError, ValueError):
                whole = False
            if not whole:
                raise CheckpointError("its metadata are damaged: export it again")
            return about
        names = _names(_literal(stored.get("names")))
        side = _literal(stored.get("imgsz"))
        side = side[0] if isinstance(side, list | tuple) and side else side
        side = side if type(side) is int else None
        return cls("foreign", side, _wnids(names), names, FLOAT_INPUT, None)

    def check(self, outputs: int) -> ModelMetadata:
        """The same for a model with so many outputs: classes that it has no names for are called by their index.

        Raises CheckpointError where the metadata name another number of classes.
        """
        if not self.names:
            names = [str(index) for index in range(outputs)]
            return ModelMetadata(**{**self.__dict__, "wnids": [""] * outputs, "names": names})
        if len(self.names) != outputs:
            raise CheckpointError(f"its metadata name {len(self.names)} classes, and it has {outputs} outputs")
        return self


def _literal(text: str | None) -> Any:
    try:
        return ast.literal_eval(text) if text and len(text) < 10_000_000 else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _names(stored: Any) -> list[str]:
    """A dict by index or a list, as programs write them."""
    if isinstance(stored, dict):
        stored = [stored.get(index) for index in range(len(stored))]
    if not isinstance(stored, list | tuple) or None in stored:
        return []
    return [str(name) for name in stored]


def _wnids(names: Sequence[str]) -> list[str]:
    if all(is_wnid(name) for name in names):
        return list(names)
    return ilsvrc2012_wnids_of(names) or [""] * len(names)
