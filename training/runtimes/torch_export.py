"""Runs torch.export archives (.pt2) that imgtool has just written, to check them."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from imgtool.training.runtimes.libraries import without_warnings
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.runtime import InputSpec, Runtime

METADATA = "imgtool.json"


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """Opens an archive. Only for trusted files: torch.export.load unpickles parts of them, which can run any code."""
    extra = {METADATA: ""}
    with without_warnings():
        module = torch.export.load(str(path), extra_files=extra).module()
    metadata = ModelMetadata.from_strings(json.loads(extra[METADATA]))
    spec = InputSpec.from_metadata(metadata)
    return Runtime(torch.inference_mode()(module), metadata, spec, torch.device("cpu"), None)
