"""Exported models by the endings of their files, and how one is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from imgtool.training.runtimes import onnx, openvino, tensorrt, torch_export, torchscript
from imgtool.training.runtimes.runtime import Runtime
from imgtool.wordnet.errors import CheckpointError, InputError

READERS: dict[str, Callable[[Path, str, int | None], Runtime]] = {
    ".onnx": onnx.read,
    ".xml": openvino.read,
    ".engine": tensorrt.read,
    ".pt2": torch_export.read,
    ".torchscript": torchscript.read,
}


def recognises(path: str | Path) -> bool:
    """Whether a file is an exported model, by its name."""
    return Path(path).suffix in READERS


def read(path: str | Path, device: str | None = None, threads: int | None = None) -> Runtime:
    """An exported model, ours or another program's, to run on ``device`` with so many ``threads`` of a CPU.

    Raises CheckpointError, naming the file, for one that is missing, malformed or no classifier of images; InputError
    where what runs it is not installed or the device is not there.
    """
    path, device = Path(path), device or "auto"
    if not path.is_file():
        raise CheckpointError(f"there is no model {path}")
    if path.suffix == ".pt2":
        raise CheckpointError(
            f"{path}: torch.export's files can run any code when they are opened: predict with the checkpoint, or ONNX"
        )
    try:
        return READERS[path.suffix](path, f"cuda:{device}" if device.isdigit() else device, threads)
    except (CheckpointError, InputError) as error:
        raise type(error)(f"{path}: {error}") from error
