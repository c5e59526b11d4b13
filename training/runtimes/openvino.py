"""OpenVINO's runtime, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgtool.training.runtimes.libraries import needs
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.runtime import Input, Runtime
from imgtool.wordnet.errors import CheckpointError, InputError, first_line

SECTION = "imgtool"
FOREIGN = "model_info"  # Ultralytics' metadata
DTYPES = {"f32": torch.float32, "f16": torch.float16, "u8": torch.uint8}
PRECISE = {"EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_PRECISION_HINT": "f32"}
"""Float32, and no weights quantised at run time: by default OpenVINO computes in bfloat16 on processors that have it
(AVX512-BF16, AMX), and an answer would depend on the processor."""


def options(threads: int | None) -> dict[str, Any]:
    """What a model is compiled with: one request at a time, on ``threads`` cores (None: OpenVINO's choice)."""
    return PRECISE | {"PERFORMANCE_HINT": "LATENCY"} | ({} if threads is None else {"INFERENCE_NUM_THREADS": threads})


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """Raises CheckpointError for a file that is no model of images."""
    needs("openvino", extra="openvino")
    import openvino

    if device.startswith("cuda"):
        raise InputError("OpenVINO does not run on CUDA: give --device cpu")
    core = openvino.Core()
    try:
        model = core.read_model(str(path))
        compiled = core.compile_model(model, "CPU", options(threads))
    except RuntimeError as error:
        raise CheckpointError(f"OpenVINO cannot read it: {first_line(error)}") from error
    if len(model.inputs) != 1 or not model.outputs:
        raise CheckpointError(f"it has {len(model.inputs)} inputs and {len(model.outputs)} outputs: no classifier")
    shape = tuple(None if side.is_dynamic else side.get_length() for side in model.inputs[0].partial_shape)
    takes = Input.check(DTYPES.get(model.inputs[0].element_type.get_type_name()), shape)
    sections = model.get_rt_info()
    section = next((sections[name] for name in (SECTION, FOREIGN) if name in sections), None)
    metadata = ModelMetadata.from_strings(_plain(section))

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled(images.numpy())[0].copy())

    last = model.outputs[0].partial_shape[-1]
    return Runtime(run, metadata, takes, torch.device("cpu"), None if last.is_dynamic else last.get_length())


def _plain(section: Any) -> dict[str, str]:
    """Metadata as OpenVINO gives them, each value in a wrapper of its own or not."""
    section = getattr(section, "value", section) or {}
    return {key: str(getattr(value, "value", value)) for key, value in section.items()}
