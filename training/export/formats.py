"""The formats by their names, and how a file of one is opened."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from imgtool.training.export import onnx, openvino, tensorrt, torch_export, torchscript, ultralytics_state
from imgtool.training.runtimes.runtime import Runtime
from imgtool.wordnet.errors import CheckpointError, InputError

FORMATS: dict[str, ModuleType] = {
    "onnx": onnx,
    "openvino": openvino,
    "tensorrt": tensorrt,
    "torch-export": torch_export,
    "torchscript": torchscript,
    "ultralytics-state": ultralytics_state,
}
RUN = {module.SUFFIX: module for module in FORMATS.values() if module is not ultralytics_state}
"""Those that are run, by the ending of their files."""


def recognises(path: str | Path) -> bool:
    """Whether a file is an exported model, by its name."""
    return Path(path).suffix in RUN


def read(path: str | Path, device: str | None = None, threads: int | None = None) -> Runtime:
    """An exported model, ours or another program's, to run on ``device`` with so many ``threads`` of a CPU.

    Raises CheckpointError, naming the file, for one that is missing, malformed or no classifier of pictures; InputError
    where what runs it is not installed or the device is not there.
    """
    path, device = Path(path), device or "auto"
    if not path.is_file():
        raise CheckpointError(f"there is no model {path}")
    if path.suffix == torch_export.SUFFIX:
        raise CheckpointError(
            f"{path}: torch.export's files can run any code when they are opened: predict with the checkpoint, or ONNX"
        )
    try:
        runtime: Runtime = RUN[path.suffix].read(path, f"cuda:{device}" if device.isdigit() else device, threads)
    except (CheckpointError, InputError) as error:
        raise type(error)(f"{path}: {error}") from error
    return runtime
