"""The metadata inside a model file: all that predicting with it needs."""

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
    """The metadata of one exported model. In another program's model, unknown values are None."""

    size: str  # n, s, m, l, x or another library's network; "foreign" for another program's model
    imgsz: int | None
    wnids: list[str]  # in the order of the outputs; empty if unknown
    names: list[str]
    input: str  # FLOAT_INPUT or UINT8_INPUT
    output: str | None  # LOGITS or PROBABILITIES
    batch: int | None = None  # images per call; None: any number
    transform: dict[str, Any] | None = None  # the validation transform
    metrics: dict[str, Any] | None = None  # of the checkpoint
    imgtool: str | None = None  # the version that wrote the model

    def to_strings(self) -> dict[str, str]:
        """Returns the fields as strings, each value as JSON, for formats whose metadata are pairs of strings."""
        return {field.name: json.dumps(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_strings(cls, stored: Mapping[str, str]) -> ModelMetadata:
        """Reads the strings of `to_strings`, or from Ultralytics' metadata the names and the image size.

        Raises CheckpointError if metadata written by imgtool are damaged.
        """
        if "imgtool" in stored:
            try:
                metadata = cls(**{field.name: json.loads(stored[field.name]) for field in fields(cls)})
                valid = len(metadata.wnids) == len(metadata.names) and all(isinstance(n, str) for n in metadata.names)
            except (KeyError, TypeError, ValueError):
                valid = False
            if not valid:
                raise CheckpointError("the metadata are damaged: export the model again")
            return metadata
        names = _names(_literal(stored.get("names")))
        side = _literal(stored.get("imgsz"))
        side = side[0] if isinstance(side, list | tuple) and side else side
        side = side if type(side) is int else None
        return cls("foreign", side, _wnids(names), names, FLOAT_INPUT, None)

    def with_outputs(self, outputs: int) -> ModelMetadata:
        """Returns the metadata for a model with this number of outputs: classes without names get their index as name.

        Raises CheckpointError if the metadata name another number of classes.
        """
        if not self.names:
            names = [str(index) for index in range(outputs)]
            return ModelMetadata(**{**self.__dict__, "wnids": [""] * outputs, "names": names})
        if len(self.names) != outputs:
            raise CheckpointError(f"the metadata name {len(self.names)} classes, but the model has {outputs} outputs")
        return self


def _literal(text: str | None) -> Any:
    """Parses a Python literal; None if it is not one."""
    try:
        return ast.literal_eval(text) if text and len(text) < 10_000_000 else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _names(stored: Any) -> list[str]:
    """Returns class names stored as a list or as a dict by index; empty if one is missing."""
    if isinstance(stored, dict):
        stored = [stored.get(index) for index in range(len(stored))]
    if not isinstance(stored, list | tuple) or None in stored:
        return []
    return [str(name) for name in stored]


def _wnids(names: Sequence[str]) -> list[str]:
    """Returns the wnids of classes named by wnid or by their ILSVRC2012 names; otherwise empty strings."""
    if all(is_wnid(name) for name in names):
        return list(names)
    return ilsvrc2012_wnids_of(names) or [""] * len(names)
