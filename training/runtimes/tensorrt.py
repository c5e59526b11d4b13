"""TensorRT's engine: for the one kind of GPU that it was built on, by the one version of TensorRT that built it.

The file is, as Ultralytics' programs have it: the length of the metadata (4 bytes, little-endian), the metadata as
JSON, the engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgtool.training.parallel.device import resolve_device
from imgtool.training.runtimes.libraries import needs
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.runtime import Input, Runtime
from imgtool.wordnet.errors import CheckpointError, InputError

LENGTH = 4  # bytes
MAX_METADATA = 64 << 20


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """Raises CheckpointError for a file that is no engine for this GPU and this TensorRT, InputError without these."""
    stored, engine_bytes = split(path)
    trt = library()
    place = resolve_device(device)
    if place.type != "cuda":
        raise InputError("TensorRT runs on CUDA only: give --device cuda")
    errors: list[str] = []
    engine = trt.Runtime(error_log(trt, errors)).deserialize_cuda_engine(engine_bytes)
    if engine is None:
        why = (errors or ["another GPU's, or another version's"])[0]
        raise CheckpointError(f"TensorRT {trt.__version__} cannot read it: {why}")
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) != 1 or not outputs:
        raise CheckpointError(f"it has {len(inputs)} inputs and {len(outputs)} outputs, and so is no classifier")
    dtypes = {trt.float32: torch.float32, trt.float16: torch.float16, trt.uint8: torch.uint8}
    shape = tuple(None if side < 0 else side for side in engine.get_tensor_shape(inputs[0]))
    takes = Input.check(dtypes.get(engine.get_tensor_dtype(inputs[0])), shape)
    most = engine.get_tensor_profile_shape(inputs[0], 0)[2][0]
    context = engine.create_execution_context()
    gives = dtypes[engine.get_tensor_dtype(outputs[0])]

    def one(images: Tensor) -> Tensor:
        images = images.contiguous()
        context.set_input_shape(inputs[0], tuple(images.shape))
        out = torch.empty(tuple(context.get_tensor_shape(outputs[0])), dtype=gives, device=place)
        context.set_tensor_address(inputs[0], images.data_ptr())
        context.set_tensor_address(outputs[0], out.data_ptr())
        stream = torch.cuda.current_stream(place)
        if not context.execute_async_v3(stream.cuda_stream):
            raise CheckpointError(f"TensorRT cannot run it: {(errors or ['it does not say why'])[0]}")
        images.record_stream(stream)
        return out

    def run(images: Tensor) -> Tensor:
        return torch.cat([one(part) for part in images.split(most)])

    last = engine.get_tensor_shape(outputs[0])[-1]
    return Runtime(run, ModelMetadata.from_strings(stored), takes, place, None if last < 0 else last)


def split(path: Path) -> tuple[dict[str, str], bytes]:
    """The metadata and the engine of a file; a bare engine has none. Raises CheckpointError where both are wrong."""
    content = path.read_bytes()
    length = int.from_bytes(content[:LENGTH], "little")
    if len(content) <= LENGTH:
        raise CheckpointError("it is empty, and so is no engine")
    if length > min(MAX_METADATA, len(content) - LENGTH) or content[LENGTH : LENGTH + 1] != b"{":
        return {}, content
    try:
        stored = json.loads(content[LENGTH : LENGTH + length])
    except ValueError:
        raise CheckpointError("its metadata are damaged: export it again") from None
    return {str(key): str(value) for key, value in stored.items()}, content[LENGTH + length :]


def library() -> Any:
    needs("tensorrt", extra="tensorrt")
    import tensorrt

    if not torch.cuda.is_available():
        raise InputError("TensorRT needs an NVIDIA GPU, and torch sees none here")
    return tensorrt


def error_log(trt: Any, errors: list[str]) -> Any:
    """Keeps errors for the message that is raised, instead of printing them."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                errors.append(message)

    return Logger()
