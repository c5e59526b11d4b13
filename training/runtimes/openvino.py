"""Runs OpenVINO models on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgtool.training.runtimes.libraries import require_packages
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.runtime import InputSpec, Runtime
from imgtool.wordnet.errors import CheckpointError, InputError, first_line

SECTION = "imgtool"  # of the model's rt_info, with the metadata
ULTRALYTICS_SECTION = "model_info"
DTYPES = {"f32": torch.float32, "f16": torch.float16, "u8": torch.uint8}
PRECISE = {"EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_PRECISION_HINT": "f32"}
"""Compute in float32 and do not quantise weights at run time. By default OpenVINO computes in bfloat16 on processors
that support it (AVX512-BF16, AMX), so that results would depend on the processor."""


def options(threads: int | None) -> dict[str, Any]:
    """Returns the options to compile a model with: low latency, on ``threads`` threads (None: OpenVINO's choice)."""
    return PRECISE | {"PERFORMANCE_HINT": "LATENCY"} | ({} if threads is None else {"INFERENCE_NUM_THREADS": threads})


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """Opens a model. Raises CheckpointError for a file that is not an image classifier, InputError for CUDA."""
    require_packages("openvino", extra="openvino")
    import openvino

    if device.startswith("cuda"):
        raise InputError("OpenVINO does not run on CUDA: give --device cpu")
    core = openvino.Core()
    try:
        model = core.read_model(str(path))
        compiled = core.compile_model(model, "CPU", options(threads))
        if len(model.inputs) != 1 or not model.outputs:
            raise CheckpointError(
                f"not a classifier: it has {len(model.inputs)} inputs and {len(model.outputs)} outputs"
            )
        shape = tuple(None if size.is_dynamic else size.get_length() for size in model.inputs[0].partial_shape)
        spec = InputSpec.check(DTYPES.get(model.inputs[0].element_type.get_type_name()), shape)
        sections = model.get_rt_info()
        section = next((sections[name] for name in (SECTION, ULTRALYTICS_SECTION) if name in sections), None)
        stored = _plain(section)
        output = model.outputs[0].partial_shape
        is_known = not output.rank.is_dynamic and len(output) == 2 and not output[1].is_dynamic
        outputs = output[1].get_length() if is_known else None
    except UnicodeDecodeError:
        raise CheckpointError("its metadata or a name in it are not UTF-8") from None
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"OpenVINO cannot read the file: {first_line(error)}") from error

    def run(images: Tensor) -> Tensor:
        try:
            return torch.from_numpy(compiled(images.numpy())[0].copy())
        except (RuntimeError, TypeError) as error:  # TypeError: torch does not have the output's type
            raise CheckpointError(f"OpenVINO cannot run the model: {first_line(error)}") from error

    return Runtime(run, ModelMetadata.from_strings(stored), spec, torch.device("cpu"), outputs)


def _plain(section: Any) -> dict[str, str]:
    """Returns a section of rt_info as strings; the section and its values may each be wrapped in an object."""
    section = getattr(section, "value", section) or {}
    return {key: str(getattr(value, "value", value)) for key, value in section.items()}
