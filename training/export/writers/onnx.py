"""ONNX, written by torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from imgtool.training.export.graph import Deployed, unsplit
from imgtool.training.export.plan import Plan
from imgtool.training.runtimes.libraries import needs, quietly
from imgtool.training.runtimes.metadata import ModelMetadata

OPSET = 18  # the first whose Resize is antialiased


def write(deployed: Deployed, plan: Plan, about: ModelMetadata, path: Path) -> None:
    """One file, weights within. Raises InputError where the exporter's packages are missing."""
    if not plan.int8:  # whose splits cost nothing, and whose sums would be float32
        deployed.network = unsplit(deployed.network)
    model = to_onnx(deployed, plan)
    for key, value in about.to_strings().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())


def to_onnx(deployed: Deployed, plan: Plan) -> Any:
    """The ONNX model, a protobuf."""
    needs("onnx", "onnxscript", extra="export")
    with quietly():
        program = torch.onnx.export(
            deployed,
            (plan.example(),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities" if plan.preprocess else "logits"],
            dynamic_shapes=(plan.dynamic_shapes(),),
        )
    assert program is not None
    model = program.model_proto
    _tidy(model)
    return model


def _tidy(model: Any) -> None:
    """Drops what the exporter notes at each node of where it came from, file names of this machine among it."""
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
