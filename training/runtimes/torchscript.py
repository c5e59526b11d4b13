"""TorchScript, run by torch."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from imgtool.training.parallel.device import exact_float32, resolve_device
from imgtool.training.runtimes.libraries import quietly
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.runtime import Input, Runtime
from imgtool.wordnet.errors import CheckpointError, first_line

METADATA = "imgtool.json"
FOREIGN = "config.txt"  # Ultralytics' metadata


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """Raises CheckpointError for a file that is no model of images."""
    place = resolve_device(device)
    extra = {METADATA: "", FOREIGN: ""}
    try:
        with quietly():
            module = torch.jit.load(str(path), map_location=place, _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"torch cannot read it: {first_line(error)}") from error
    try:
        stored = json.loads(extra[METADATA] or extra[FOREIGN] or "{}")
        metadata = ModelMetadata.from_strings({str(key): str(value) for key, value in stored.items()})
    except (ValueError, AttributeError):
        raise CheckpointError("its metadata are damaged: export it again") from None

    def run(images: Tensor) -> Tensor:
        try:
            with torch.inference_mode(), exact_float32():
                out = module(images)
        except RuntimeError as error:
            raise CheckpointError(f"torch cannot run it: {first_line(error)}") from error
        if not isinstance(out, Tensor):
            raise CheckpointError("it gives no tensor, and so is no classifier")
        return out

    return Runtime(run, metadata, Input.of(metadata), place, None)
