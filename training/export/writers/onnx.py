"""Writes ONNX through torch.onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from imgtool.training.export.graph import ExportModule, unsplit
from imgtool.training.export.settings import ExportSettings
from imgtool.training.runtimes.libraries import require_packages, without_warnings
from imgtool.training.runtimes.metadata import ModelMetadata

OPSET = 18  # the first whose Resize is antialiased


def write(module: ExportModule, settings: ExportSettings, metadata: ModelMetadata, path: Path) -> None:
    """Writes one file that includes the weights. Raises InputError if a package that torch.onnx needs is missing."""
    if not settings.int8:  # quantised, a split costs nothing, and the sums of UnsplitC2f would stay float32
        module.network = unsplit(module.network)
    model = to_onnx(module, settings)
    for key, value in metadata.to_strings().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())


def to_onnx(module: ExportModule, settings: ExportSettings) -> Any:
    """Returns the ONNX model as a protobuf (onnx.ModelProto)."""
    require_packages("onnx", "onnxscript", extra="export")
    with without_warnings():
        program = torch.onnx.export(
            module,
            (settings.example(),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities" if settings.preprocess else "logits"],
            dynamic_shapes=(settings.dynamic_shapes(),),
        )
    assert program is not None
    model = program.model_proto
    _strip_debug_info(model)
    return model


def _strip_debug_info(model: Any) -> None:
    """Removes the origin that the exporter records at each node, which includes file names of this machine."""
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
