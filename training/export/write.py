"""`export`: writes a checkpoint's model for another program, and keeps it only if it agrees with the checkpoint."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imgtool.pipelines.codec.transform import ValTransform
from imgtool.pipelines.storage.atomic import sync
from imgtool.training.checkpoints import checkpoint
from imgtool.training.export.check import ExportCheck, check
from imgtool.training.export.formats import SUFFIXES, WEIGHTS_ONLY
from imgtool.training.export.graph import ExportModule, Preprocess
from imgtool.training.export.images import calibration_images, check_images
from imgtool.training.export.int8 import quantise
from imgtool.training.export.settings import ExportSettings
from imgtool.training.export.writers import WRITERS, ultralytics_state
from imgtool.training.models import yolov8
from imgtool.training.models.trained import TrainedModel
from imgtool.training.runtimes.metadata import FLOAT_INPUT, LOGITS, PROBABILITIES, UINT8_INPUT, ModelMetadata
from imgtool.training.runtimes.native import Native
from imgtool.training.runtimes.readers import READERS
from imgtool.wordnet.errors import CheckpointError, InputError, TrainingError, first_line

ADVICE = {
    "full": "",
    "half": ": export in full precision",
    "int8": ": calibrate on images that represent the data better, or export without int8",
}  # by precision, for an export that differs too much


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    format: str
    files: list[Path]  # the model first
    check: ExportCheck | None = None  # None for a format that no program runs
    calibration: int | None = None  # images that int8 was calibrated on

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "files": [str(path) for path in self.files],
            "check": self.check.to_dict() if self.check else None,
            "calibration": self.calibration,
        }


def export(
    model: TrainedModel,
    format: str,
    out: str | Path | None = None,
    *,
    imgsz: int | None = None,
    batch: int | None = None,
    half: bool = False,
    with_preprocess: bool = False,
    int8: bool = False,
    calibrate: str | Path | None = None,
    data: str | Path | None = None,
) -> Exported:
    """Writes a trained model to ``out`` (default: next to its checkpoint) in ``format``, a key of `formats.SUFFIXES`.

    ``imgsz`` is the side of the images in pixels (default: the checkpoint's), ``batch`` a fixed number of images per
    call. ``half`` computes in float16, ``int8`` quantises an ONNX model with ranges measured on the data set
    ``calibrate``. ``with_preprocess`` puts the validation transform and a softmax into the model. ``data`` is the data
    set to check the export on.

    Raises InputError for options that exclude each other or a package that is not installed, CheckpointError for a
    model that cannot be exported or a file that cannot be written, TrainingError when the export differs from its
    checkpoint; it is then kept as NAME.failed, and a file that was at ``out`` before stays.
    """
    if format not in SUFFIXES:
        raise InputError(f"unknown format {format!r}: choose one of {', '.join(SUFFIXES)}")
    suffix = SUFFIXES[format]
    source = model.require_weights()
    if model.is_exported:
        raise InputError(f"{source} is an exported model already: export the checkpoint that it was made from")
    out = Path(out) if out is not None else source.with_name(source.stem + ("-int8" if int8 else "") + suffix)
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"--out {out} is the checkpoint itself: write to another file")
    if format == WEIGHTS_ONLY:
        if imgsz or batch or half or with_preprocess or int8:
            raise InputError(f"{format} stores only weights: it takes no image size, batch, half, int8 or preprocess")
        with _write_errors(out):
            return Exported(format, ultralytics_state.write(model, out))
    if out.suffix != suffix:
        raise InputError(f"--out {out} must end in {suffix}, the suffix by which {format} files are recognised")
    if int8 and (format != "onnx" or half or calibrate is None):
        raise InputError("int8 needs format onnx, full precision (no half) and a data set to calibrate on")
    if calibrate is not None and not int8:
        raise InputError(f"--calibrate {calibrate} has no effect without int8")
    settings = ExportSettings(imgsz or model.imgsz, batch, half, with_preprocess, int8)
    transform = ValTransform(settings.imgsz)
    images, synthetic = check_images(source, data if data is not None else calibrate, settings.imgsz)
    native = Native.fused(model.network, model.criterion, torch.device("cpu"))
    preprocess = Preprocess(settings.imgsz) if with_preprocess else None
    module = ExportModule(yolov8.fuse(model.network).cpu(), model.criterion.cpu(), half, preprocess).eval()
    calibrated_on = None
    with _temporary_folder(out) as folder:
        temporary = folder / out.name
        WRITERS[format](module, settings, metadata_of(model, settings), temporary)
        if int8:
            assert calibrate is not None
            calibrated_on = quantise(temporary, map(transform, calibration_images(calibrate)), settings)
        exported = READERS[suffix](temporary, "cuda" if format == "tensorrt" else "cpu", None)
        result = check(native, exported, images, transform, settings.precision, synthetic)
        del exported  # it may hold the file open
        target = out if result.passed else out.with_name(f"{out.stem}.failed{out.suffix}")
        files = _move(folder, out, target)
    if not result.passed:
        advice = ADVICE[settings.precision]
        raise TrainingError(f"the export differs from its checkpoint: {result.failure}; it is kept as {target}{advice}")
    return Exported(format, files, result, calibrated_on)


def metadata_of(model: TrainedModel, settings: ExportSettings) -> ModelMetadata:
    """Returns the metadata that the model file stores."""
    return ModelMetadata(
        size=model.size,
        imgsz=settings.imgsz,
        wnids=model.wnids,
        names=model.names,
        input=UINT8_INPUT if settings.preprocess else FLOAT_INPUT,
        output=PROBABILITIES if settings.preprocess else LOGITS,
        batch=settings.batch,
        transform=ValTransform(settings.imgsz).to_dict(),
        metrics=model.metrics,
        imgtool=checkpoint.version(),
    )


@contextlib.contextmanager
def _write_errors(out: Path) -> Iterator[None]:
    """Turns errors of writers into a CheckpointError of one line that names ``out``."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's zip writer raises RuntimeError for a full disk, as exporters do
        raise CheckpointError(f"cannot write {out}: {first_line(error)}") from error


@contextlib.contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """A folder on the same disk as ``out`` for unfinished files; it is removed with everything left in it."""
    with _write_errors(out), tempfile.TemporaryDirectory(prefix=".imgtool-export-", dir=out.parent) as folder:
        yield Path(folder)


def _move(folder: Path, out: Path, target: Path) -> list[Path]:
    """Moves all files of the folder, the model first; their names get the stem of ``target`` instead of ``out``'s."""
    files = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name != out.name):
        sync(path)
        moved = target.with_name(target.stem + path.name.removeprefix(out.stem))
        os.replace(path, moved)
        files.append(moved)
    sync(out.parent)
    return files
