"""Writes TorchScript, which torch runs from Python and C++."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from imgtool.training.export.graph import ExportModule
from imgtool.training.export.settings import ExportSettings
from imgtool.training.runtimes.libraries import without_warnings
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.torchscript import METADATA


def write(module: ExportModule, settings: ExportSettings, metadata: ModelMetadata, path: Path) -> None:
    with without_warnings(), torch.inference_mode():
        if module.preprocess is not None:
            module.preprocess = torch.jit.script(module.preprocess)  # tracing would fix the size of the images
        traced = torch.jit.freeze(torch.jit.trace(module.eval(), settings.example(), check_trace=False))
        torch.jit.save(traced, str(path), _extra_files={METADATA: json.dumps(metadata.to_strings())})
