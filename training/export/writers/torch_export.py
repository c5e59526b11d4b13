"""Writes a torch.export archive (.pt2), which AOTInductor, ExecuTorch and others compile further."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from imgtool.training.export.graph import ExportModule
from imgtool.training.export.settings import ExportSettings
from imgtool.training.runtimes.libraries import without_warnings
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.torch_export import METADATA


def write(module: ExportModule, settings: ExportSettings, metadata: ModelMetadata, path: Path) -> None:
    with without_warnings():
        program = torch.export.export(module, (settings.example(),), dynamic_shapes=(settings.dynamic_shapes(),))
        with open(path, "wb") as file:
            torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata.to_strings())})
