"""Checkpoints: one torch file of tensors and plain values, written whole or not at all, read without running code.

A checkpoint is a dict:

    format, imgtool          FORMAT; the version that wrote it
    size, dropout, imgsz     what `models.build` needs (size: or an arch, timm:resnet50), and the validation size
    wnids, names             of the classes, in the order of the logits
    epoch, metrics           epochs done; top1, top5, loss … of `ema` then
    recipe                   as `Recipe.to_dict` gives it
    ema                      state_dict of the averaged weights: what val and predict use
    resume                   model, optimizer, scaler, ema_steps, loader, best, seconds; and a process each: rng, meters
                             (None between epochs). None in best.pt, which is for use
"""

from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from imgtool.pipelines.storage.atomic import replacing
from imgtool.wordnet.errors import CheckpointError, first_line

FORMAT = "imgtool-checkpoint-1"
KEYS = {"size", "dropout", "imgsz", "wnids", "names", "epoch", "metrics", "recipe", "ema", "resume"}


def save(path: Path, checkpoint: dict[str, Any]) -> None:
    """Writes beside ``path``, syncs to disk, renames: a crash or a full disk leaves what was there before.

    Raises CheckpointError when it cannot be written.
    """
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            torch.save({"format": FORMAT, "imgtool": version(), **checkpoint}, file)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        raise CheckpointError(f"cannot write {path}: {_first_sentence(error)}") from error


def load(path: str | Path) -> dict[str, Any]:
    """The checkpoint in this file, its tensors on the CPU.

    torch's weights-only unpickler builds tensors and plain containers and refuses everything else, so a foreign file
    cannot run code. Raises CheckpointError for a missing, truncated, foreign or malicious file.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile's, pickle's, torch's: many kinds, one meaning
        raise CheckpointError(f"{path} is not a whole checkpoint of plain tensors: {_first_sentence(error)}") from error
    if not isinstance(checkpoint, dict) or not str(checkpoint.get("format")).startswith("imgtool-checkpoint-"):
        raise CheckpointError(f"{path} is not a checkpoint of imgtool")
    if checkpoint["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {checkpoint['format']}, this imgtool reads {FORMAT}: upgrade imgtool")
    if missing := KEYS - checkpoint.keys():
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}")
    return checkpoint


def find(path: str | Path) -> Path:
    """The file to use of a checkpoint or of a run directory: its weights/best.pt, or last.pt when that is all.

    Raises CheckpointError when there is none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in ("best.pt", "last.pt"):
        if (path / "weights" / name).is_file():
            return path / "weights" / name
    raise CheckpointError(f"{path} holds no checkpoint: there is no weights/best.pt in it")


def version() -> str:
    """Of the installed imgtool."""
    try:
        return metadata.version("imgtool")
    except metadata.PackageNotFoundError:  # a source tree on the path, never installed
        return "unknown"


def _first_sentence(error: BaseException) -> str:
    """torch's errors continue with advice to load the file unsafely."""
    return first_line(error).split(". ")[0]
