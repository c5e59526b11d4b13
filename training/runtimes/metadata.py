"""The metadata inside a model file: all that predicting with it needs."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from imgtool.training.checkpoints.content import is_count, is_metrics, is_number, is_plain, is_text, is_texts
from imgtool.training.recipes import MAX_IMGSZ
from imgtool.wordnet.errors import CheckpointError
from imgtool.wordnet.imagenet.class_names import ilsvrc2012_wnids_of
from imgtool.wordnet.tables.nouns import is_wnid

LOGITS, PROBABILITIES = "logits", "probabilities"
FLOAT_INPUT, UINT8_INPUT = "float32 [N, 3, imgsz, imgsz], RGB, 0..1", "uint8 [N, H, W, 3], RGB"


MAX_BATCH = 1 << 16  # images per call
MAX_LITERAL = 4 << 20  # characters of another program's names; parsing takes 200 times this in bytes


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

        Raises CheckpointError, which names the key, if metadata written by imgtool are damaged.
        """
        if "imgtool" in stored:
            values = {}
            for name, holds in RULES.items():
                try:
                    values[name] = json.loads(stored[name])
                except (KeyError, ValueError, RecursionError):
                    raise damaged(name) from None
                if not holds(values[name]):
                    raise damaged(name)
            if len(values["wnids"]) != len(values["names"]):
                raise damaged("names")
            return cls(**values)
        names = _names(_literal(stored.get("names")))
        side = _literal(stored.get("imgsz"))
        side = side[0] if isinstance(side, list | tuple) and side else side
        side = side if is_count(side, 1, MAX_IMGSZ) else None
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


RULES: dict[str, Callable[[Any], bool]] = {
    "size": is_text,
    "imgsz": lambda value: is_count(value, 1, MAX_IMGSZ),
    "wnids": is_texts,
    "names": is_texts,
    "input": lambda value: value in (FLOAT_INPUT, UINT8_INPUT),
    "output": lambda value: value in (LOGITS, PROBABILITIES),
    "batch": lambda value: value is None or is_count(value, 1, MAX_BATCH),
    "transform": lambda value: value is None or (isinstance(value, dict) and is_plain(value)),
    "metrics": lambda value: value is None or is_metrics(value),
    "imgtool": is_text,
}


def damaged(key: str) -> CheckpointError:
    return CheckpointError(f"the metadata are damaged ({key}): export the model again")


def parse_json(text: str | bytes) -> dict[str, str]:
    """Returns metadata that a file has as a JSON object of strings. Raises CheckpointError for anything else."""
    try:
        stored = json.loads(text)
        return {key: str(value) for key, value in stored.items()}
    except (ValueError, RecursionError, AttributeError):
        raise damaged("not a JSON object") from None


def _literal(text: str | None) -> Any:
    """Parses a Python literal; None if it is not one."""
    try:
        return ast.literal_eval(text) if text and len(text) <= MAX_LITERAL else None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _names(stored: Any) -> list[str]:
    """Returns class names stored as a list or as a dict by index; empty if one is missing."""
    if isinstance(stored, dict):
        stored = [stored.get(index) for index in range(len(stored))]
    if not isinstance(stored, list | tuple) or None in stored:
        return []
    if not all(is_text(name) or is_number(name) for name in stored):
        return []
    return [str(name) for name in stored]


def _wnids(names: Sequence[str]) -> list[str]:
    """Returns the wnids of classes named by wnid or by their ILSVRC2012 names; otherwise empty strings."""
    if all(is_wnid(name) for name in names):
        return list(names)
    return ilsvrc2012_wnids_of(names) or [""] * len(names)
