"""Checkpoints: torch files of tensors and plain values, written atomically and read without running code.

A checkpoint is a dict:

    format, imgtool          FORMAT; the version of imgtool that wrote it
    size, dropout, imgsz     size or architecture (n, timm:resnet50) and dropout of the network; validation image size
    wnids, names             of the classes, in the order of the logits
    epoch, metrics           number of epochs done; top1, top5, loss … of `ema` after them
    recipe                   as returned by `Recipe.to_dict`
    ema                      state_dict of the averaged weights, which val and predict use
    resume                   model, optimizer, scaler, ema_steps, loader, best, seconds; one per process: rng, meters
                             (None between epochs). None in best.pt, which cannot be resumed
"""

from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from imgtool.pipelines.storage.atomic import atomic_write
from imgtool.training.checkpoints import safe_pickle
from imgtool.training.checkpoints.content import check, is_text
from imgtool.wordnet.errors import CheckpointError, first_line

FORMAT = "imgtool-checkpoint-1"


def save(path: Path, checkpoint: dict[str, Any]) -> None:
    """Writes a temporary file, syncs it to disk and renames it: after a crash or on a full disk the old file remains.

    Raises CheckpointError when the file cannot be written.
    """
    try:
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            torch.save({"format": FORMAT, "imgtool": version(), **checkpoint}, file)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        raise CheckpointError(f"cannot write {path}: {_first_sentence(error)}") from error


def load(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint; its tensors are on the CPU.

    The file is read as data (`imgtool.training.checkpoints.safe_pickle`): it cannot run code, and takes no more memory
    than its size allows. Raises CheckpointError for a missing, truncated, foreign or malicious file, and for one with a
    value of another type than training writes; the message names its key.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        found = safe_pickle.read(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}: give a .pt file, a run's directory or an exported model") from None
    is_ours = isinstance(found, dict) and is_text(found.get("format"))
    if not is_ours or not found["format"].startswith("imgtool-checkpoint-"):
        raise CheckpointError(f"{path} is not a checkpoint of imgtool")
    if found["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {found['format'][:50]}, this imgtool reads {FORMAT}: upgrade imgtool")
    try:
        check(found)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return found


def find(path: str | Path) -> Path:
    """Returns the path itself if it is not a directory; of a run directory weights/best.pt, or last.pt if there is no
    best.pt. Raises CheckpointError if it has neither.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in ("best.pt", "last.pt"):
        if (path / "weights" / name).is_file():
            return path / "weights" / name
    raise CheckpointError(f"{path} has no checkpoint: weights/best.pt is missing")


def version() -> str:
    """Returns the version of the installed imgtool."""
    try:
        return metadata.version("imgtool")
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        return "unknown"


def _first_sentence(error: BaseException) -> str:
    """Without the advice that follows in torch's errors, which is to load the file unsafely."""
    return first_line(error).split(". ")[0]
