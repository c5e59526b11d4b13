"""Runs TorchScript models in torch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from imgtool.training.parallel.device import exact_float32, resolve_device
from imgtool.training.runtimes.libraries import without_warnings
from imgtool.training.runtimes.metadata import ModelMetadata, parse_json
from imgtool.training.runtimes.runtime import InputSpec, Runtime
from imgtool.wordnet.errors import CheckpointError, first_line

METADATA = "imgtool.json"
ULTRALYTICS_METADATA = "config.txt"


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """Opens a model. Raises CheckpointError for a file that is not an image classifier."""
    torch_device = resolve_device(device)
    extra = {METADATA: "", ULTRALYTICS_METADATA: ""}
    try:
        with without_warnings():
            module = torch.jit.load(str(path), map_location=torch_device, _extra_files=extra)
    except UnicodeDecodeError:
        raise CheckpointError("its metadata or a name in it are not UTF-8") from None
    except (RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(f"torch cannot read the file: {first_line(error)}") from error
    metadata = ModelMetadata.from_strings(parse_json(extra[METADATA] or extra[ULTRALYTICS_METADATA] or "{}"))

    def run(images: Tensor) -> Tensor:
        try:
            with torch.inference_mode(), exact_float32():
                out = module(images)
        except RuntimeError as error:
            raise CheckpointError(f"torch cannot run the model: {first_line(error)}") from error
        if not isinstance(out, Tensor):
            raise CheckpointError(f"not a classifier: its output is a {type(out).__name__}, not a tensor")
        return out

    return Runtime(run, metadata, InputSpec.from_metadata(metadata), torch_device, None)
