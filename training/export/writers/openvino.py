"""Writes an OpenVINO model: an .xml, and next to it a .bin with the weights. It runs on Intel and AMD processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imgtool.training.export.graph import ExportModule
from imgtool.training.export.settings import ExportSettings
from imgtool.training.export.writers.onnx import to_onnx
from imgtool.training.runtimes.libraries import require_packages
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.openvino import SECTION


def write(module: ExportModule, settings: ExportSettings, metadata: ModelMetadata, path: Path) -> None:
    """In half precision only the stored weights are float16; OpenVINO computes in float32."""
    require_packages("openvino", extra="openvino")
    import openvino

    source = path.with_suffix(".onnx")  # OpenVINO's converter from torch does not support the antialiased resize
    source.write_bytes(to_onnx(module, settings).SerializeToString())
    model = openvino.convert_model(str(source))
    source.unlink()
    _antialias(model)
    model.inputs[0].get_tensor().set_names({"images"})
    model.outputs[0].get_tensor().set_names({metadata.output or "logits"})
    for key, value in metadata.to_strings().items():
        model.set_rt_info(value, [SECTION, key])
    openvino.save_model(model, str(path), compress_to_fp16=settings.half)


def _antialias(model: Any) -> None:
    """Makes each resize antialiased, as Pillow's: OpenVINO's converter drops ONNX's antialias attribute."""
    from openvino import opset11

    for node in model.get_ops():
        if node.get_type_name() == "Interpolate":
            pads = node.get_attributes()["pads_begin"]  # all zero
            inputs = [port.get_source_output() for port in node.inputs()]
            resize = opset11.interpolate(*inputs[:2], "bilinear_pillow", "sizes", pads_begin=pads, pads_end=pads)
            node.output(0).replace(resize.output(0))
