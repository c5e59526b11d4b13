"""Runs ONNX models in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgtool.training.runtimes.libraries import require_packages
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.runtime import InputSpec, Runtime
from imgtool.wordnet.errors import CheckpointError, InputError, first_line

DTYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(uint8)": torch.uint8}


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """Opens a model on ``device``: auto (CUDA if onnxruntime has it), cpu, cuda or cuda:N.

    Raises CheckpointError for a file that is not an image classifier, InputError for a device that is not available.
    """
    session = open_session(path, device, threads)
    try:
        metadata = ModelMetadata.from_strings(session.get_modelmeta().custom_metadata_map)
        first = session.get_inputs()[:1] + session.get_outputs()[:1]
        _ = [(value.name, value.shape, value.type) for value in first]
    except UnicodeDecodeError:
        raise CheckpointError("its metadata or a name in it are not UTF-8") from None
    if metadata.imgtool is None:
        # Another program's model may have 8-bit weights. It is opened a second time, because onnxruntime gives access
        # to the metadata only after it has built the session, whose options are then fixed.
        session = open_session(path, device, threads, exact_int8=True)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or not outputs:
        raise CheckpointError(f"not a classifier: it has {len(inputs)} inputs and {len(outputs)} outputs")
    spec = InputSpec.check(DTYPES.get(inputs[0].type), tuple(_size(size) for size in inputs[0].shape))
    name, shape = inputs[0].name, outputs[0].shape

    def run(images: Tensor) -> Tensor:
        try:
            return torch.from_numpy(session.run([outputs[0].name], {name: images.numpy()})[0])
        except Exception as error:
            raise CheckpointError(f"onnxruntime cannot run the model: {first_line(error)}") from error

    return Runtime(run, metadata, spec, torch.device("cpu"), _size(shape[1]) if len(shape) == 2 else None)


def open_session(path: Path, device: str, threads: int | None, exact_int8: bool = False) -> Any:
    """Returns an onnxruntime.InferenceSession that computes float32 in float32, also on CUDA (no TF32).

    ``exact_int8`` makes sums of 8-bit products exact on x86-64 processors without VNNI, where onnxruntime by default
    saturates the sum of two products at 16 bits. It is slower there. Models of `int8.quantise` do not need it, because
    their weights have 7 bits.
    Raises CheckpointError for a file that onnxruntime cannot read, InputError for a device that is not available.
    """
    require_packages("onnxruntime", extra="export")
    import onnxruntime as ort

    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise InputError("this onnxruntime has no CUDA: pip install onnxruntime-gpu, or give --device cpu")
    providers: list[Any] = ["CPUExecutionProvider"]
    if has_cuda and device != "cpu":
        number = device.partition(":")[2]
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(number or 0), "use_tf32": 0}))
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only, which are also raised
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.x64quantprecision", str(int(exact_int8)))
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common base class
        raise CheckpointError(f"onnxruntime cannot read the file: {first_line(error)}") from error


def _size(size: Any) -> int | None:
    """A dimension of a shape; None if it is symbolic."""
    return size if isinstance(size, int) and size > 0 else None
