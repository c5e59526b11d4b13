"""OpenVINO's model, an .xml with its weights in a .bin beside it, run by OpenVINO on Intel's and AMD's processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imgtool.training.export.graph import Deployed
from imgtool.training.export.plan import Plan
from imgtool.training.export.writers.onnx import to_onnx
from imgtool.training.runtimes.libraries import needs
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.openvino import SECTION


def write(deployed: Deployed, plan: Plan, about: ModelMetadata, path: Path) -> None:
    """In half precision the weights are stored as float16, and computed with in float32 all the same."""
    needs("openvino", extra="openvino")
    import openvino

    source = path.with_suffix(".onnx")  # its converter from torch knows no antialiased resize
    source.write_bytes(to_onnx(deployed, plan).SerializeToString())
    model = openvino.convert_model(str(source))
    source.unlink()
    _antialias(model)
    model.inputs[0].get_tensor().set_names({"images"})
    model.outputs[0].get_tensor().set_names({about.output or "logits"})
    for key, value in about.to_strings().items():
        model.set_rt_info(value, [SECTION, key])
    openvino.save_model(model, str(path), compress_to_fp16=plan.half)


def _antialias(model: Any) -> None:
    """Puts OpenVINO's antialiased resize, which is Pillow's, where its converter has taken over one that is not."""
    from openvino import opset11

    for node in model.get_ops():
        if node.get_type_name() == "Interpolate":
            none = node.get_attributes()["pads_begin"]
            inputs = [port.get_source_output() for port in node.inputs()]
            resize = opset11.interpolate(*inputs[:2], "bilinear_pillow", "sizes", pads_begin=none, pads_end=none)
            node.output(0).replace(resize.output(0))
