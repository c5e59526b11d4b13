"""The formats by their names: the ending of their files, and what writes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from imgtool.training.export.graph import Deployed
from imgtool.training.export.plan import Plan
from imgtool.training.export.writers import onnx, openvino, tensorrt, torch_export, torchscript
from imgtool.training.runtimes.metadata import ModelMetadata


class Format(NamedTuple):
    """``write`` is None for a format that holds weights alone and that no program runs."""

    suffix: str
    write: Callable[[Deployed, Plan, ModelMetadata, Path], None] | None


FORMATS = {
    "onnx": Format(".onnx", onnx.write),
    "openvino": Format(".xml", openvino.write),
    "tensorrt": Format(".engine", tensorrt.write),
    "torch-export": Format(".pt2", torch_export.write),
    "torchscript": Format(".torchscript", torchscript.write),
    "ultralytics-state": Format(".state.pt", None),
}
