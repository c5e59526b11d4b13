"""One writer per format that a program runs: it writes the exported module, with the metadata, to a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from imgtool.training.export.graph import ExportModule
from imgtool.training.export.settings import ExportSettings
from imgtool.training.export.writers import onnx, openvino, tensorrt, torch_export, torchscript
from imgtool.training.runtimes.metadata import ModelMetadata

WRITERS: dict[str, Callable[[ExportModule, ExportSettings, ModelMetadata, Path], None]] = {
    "onnx": onnx.write,
    "openvino": openvino.write,
    "tensorrt": tensorrt.write,
    "torch-export": torch_export.write,
    "torchscript": torchscript.write,
}
