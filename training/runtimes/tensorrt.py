"""Runs TensorRT engines, each on the GPU model and with the TensorRT version that built it.

The file has Ultralytics' layout: the length of the metadata (4 bytes, little-endian), the metadata as JSON, the engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgtool.training.parallel.device import resolve_device
from imgtool.training.runtimes.libraries import require_packages
from imgtool.training.runtimes.metadata import ModelMetadata, parse_json
from imgtool.training.runtimes.runtime import InputSpec, Runtime
from imgtool.wordnet.errors import CheckpointError, InputError

LENGTH_BYTES = 4
MAX_METADATA = 64 << 20  # bytes


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """Opens an engine. Raises CheckpointError for one of another GPU or TensorRT version, InputError without these."""
    stored, engine_bytes = split_file(path)
    trt = library()
    cuda = resolve_device(device)
    if cuda.type != "cuda":
        raise InputError("TensorRT runs on CUDA only: give --device cuda")
    errors: list[str] = []
    engine = trt.Runtime(error_log(trt, errors)).deserialize_cuda_engine(engine_bytes)
    if engine is None:
        reason = (errors or ["it was built on another GPU model or with another version"])[0]
        raise CheckpointError(f"TensorRT {trt.__version__} cannot read the engine: {reason}")
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) != 1 or not outputs:
        raise CheckpointError(f"not a classifier: it has {len(inputs)} inputs and {len(outputs)} outputs")
    dtypes = {trt.float32: torch.float32, trt.float16: torch.float16, trt.uint8: torch.uint8}
    shape = tuple(None if size < 0 else size for size in engine.get_tensor_shape(inputs[0]))
    spec = InputSpec.check(dtypes.get(engine.get_tensor_dtype(inputs[0])), shape)
    max_batch = engine.get_tensor_profile_shape(inputs[0], 0)[2][0]
    context = engine.create_execution_context()
    output_dtype = dtypes[engine.get_tensor_dtype(outputs[0])]

    def run_batch(images: Tensor) -> Tensor:
        images = images.contiguous()
        context.set_input_shape(inputs[0], tuple(images.shape))
        out = torch.empty(tuple(context.get_tensor_shape(outputs[0])), dtype=output_dtype, device=cuda)
        context.set_tensor_address(inputs[0], images.data_ptr())
        context.set_tensor_address(outputs[0], out.data_ptr())
        stream = torch.cuda.current_stream(cuda)
        if not context.execute_async_v3(stream.cuda_stream):
            raise CheckpointError(f"TensorRT cannot run the engine: {(errors or ['no reason given'])[0]}")
        images.record_stream(stream)
        return out

    def run(images: Tensor) -> Tensor:
        return torch.cat([run_batch(part) for part in images.split(max_batch)])

    last = engine.get_tensor_shape(outputs[0])[-1]
    return Runtime(run, ModelMetadata.from_strings(stored), spec, cuda, None if last < 0 else last)


def split_file(path: Path) -> tuple[dict[str, str], bytes]:
    """Returns the metadata (empty for a bare engine) and the engine. Raises CheckpointError if the file is damaged."""
    content = path.read_bytes()
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    if len(content) <= LENGTH_BYTES:
        raise CheckpointError("the file is too short for an engine")
    if length > min(MAX_METADATA, len(content) - LENGTH_BYTES) or content[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        return {}, content
    return parse_json(content[LENGTH_BYTES : LENGTH_BYTES + length]), content[LENGTH_BYTES + length :]


def library() -> Any:
    """Returns the tensorrt module. Raises InputError if it is not installed or there is no NVIDIA GPU."""
    require_packages("tensorrt", extra="tensorrt")
    import tensorrt

    if not torch.cuda.is_available():
        raise InputError("TensorRT needs an NVIDIA GPU, and torch finds none")
    return tensorrt


def error_log(trt: Any, errors: list[str]) -> Any:
    """Returns a TensorRT logger that appends errors to the list instead of printing them."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                errors.append(message)

    return Logger()
