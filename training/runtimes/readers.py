"""Opens exported models: one reader per file suffix."""

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
    """Returns whether a file is an exported model, by its suffix."""
    return Path(path).suffix in READERS


def read(path: str | Path, device: str | None = None, threads: int | None = None) -> Runtime:
    """Opens an exported model, of imgtool or another program, on ``device``; on a CPU it uses ``threads`` threads.

    Raises CheckpointError, naming the file, if it is missing, malformed or not an image classifier; InputError if the
    library that runs it is not installed or the device is not available.
    """
    path, device = Path(path), device or "auto"
    if not path.is_file():
        raise CheckpointError(f"there is no model {path}")
    if path.suffix == ".pt2":
        raise CheckpointError(
            f"{path}: opening a torch.export file can run any code: predict with the checkpoint or an ONNX export"
        )
    try:
        return READERS[path.suffix](path, f"cuda:{device}" if device.isdigit() else device, threads)
    except (CheckpointError, InputError) as error:
        raise type(error)(f"{path}: {error}") from error
