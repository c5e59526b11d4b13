"""ONNX, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgtool.training.runtimes.libraries import needs
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.runtime import Input, Runtime
from imgtool.wordnet.errors import CheckpointError, InputError, first_line

DTYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(uint8)": torch.uint8}


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """A session of onnxruntime, on the GPU where ``device`` (auto, cpu, cuda, cuda:N) and the installed one allow.

    Raises CheckpointError for a file that is no model of images, InputError for a device that is not there.
    """
    session = open_session(path, device, threads)
    metadata = ModelMetadata.from_strings(session.get_modelmeta().custom_metadata_map)
    if metadata.imgtool is None:  # its 8-bit weights, if it has such, may use all 8 bits
        session = open_session(path, device, threads, exact_int8=True)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or not outputs:
        raise CheckpointError(f"it has {len(inputs)} inputs and {len(outputs)} outputs, and so is no classifier")
    takes = Input.check(DTYPES.get(inputs[0].type), tuple(_side(side) for side in inputs[0].shape))
    name, shape = inputs[0].name, outputs[0].shape

    def run(images: Tensor) -> Tensor:
        try:
            return torch.from_numpy(session.run([outputs[0].name], {name: images.numpy()})[0])
        except Exception as error:
            raise CheckpointError(f"onnxruntime cannot run it: {first_line(error)}") from error

    return Runtime(run, metadata, takes, torch.device("cpu"), _side(shape[1]) if len(shape) == 2 else None)


def open_session(path: Path, device: str, threads: int | None, exact_int8: bool = False) -> Any:
    """An onnxruntime.InferenceSession that computes float32 in float32, on CUDA too.

    ``exact_int8``: also sums products of 8-bit integers without overflow on processors without instructions for them
    (x86-64 before VNNI), where onnxruntime by default saturates pairs of products at 16 bits. It is slower there;
    models of `int8.quantise` do not need it, because their weights have 7 bits.
    Raises CheckpointError for a file that onnxruntime cannot read, InputError for a device that is not there.
    """
    needs("onnxruntime", extra="export")
    import onnxruntime as ort

    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise InputError("this onnxruntime has no CUDA: pip install onnxruntime-gpu, or give --device cpu")
    providers: list[Any] = ["CPUExecutionProvider"]
    if has_cuda and device != "cpu":
        number = device.partition(":")[2]
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(number or 0), "use_tf32": 0}))
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors alone: they are raised too
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.x64quantprecision", str(int(exact_int8)))
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # its errors have no common root
        raise CheckpointError(f"onnxruntime cannot read it: {first_line(error)}") from error


def _side(side: Any) -> int | None:
    return side if isinstance(side, int) and side > 0 else None
