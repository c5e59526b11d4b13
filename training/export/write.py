"""`export`: a checkpoint's model into a file, held to the checkpoint before it takes its place."""

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
from imgtool.training.export import images
from imgtool.training.export.check import Check, check
from imgtool.training.export.formats import FORMATS
from imgtool.training.export.graph import Deployed, Preprocess
from imgtool.training.export.int8 import quantise
from imgtool.training.export.plan import Plan
from imgtool.training.export.writers import ultralytics_state
from imgtool.training.models import yolov8
from imgtool.training.models.trained import TrainedModel
from imgtool.training.runtimes.metadata import FLOAT_INPUT, LOGITS, PROBABILITIES, UINT8_INPUT, ModelMetadata
from imgtool.training.runtimes.native import Native
from imgtool.training.runtimes.readers import READERS
from imgtool.wordnet.errors import CheckpointError, InputError, TrainingError, first_line


@dataclass(frozen=True)
class Exported:
    """``files`` that were written, the model first; ``check`` is None for a format that no program runs."""

    format: str
    files: list[Path]
    check: Check | None = None
    calibration: int | None = None  # images

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "files": [str(path) for path in self.files],
            "check": self.check.to_dict() if self.check else None,
            "calibration": self.calibration,
        }


def export(
    model: TrainedModel,
    form: str,
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
    """Writes a trained model as ``out`` in the format ``form``, a key of `FORMATS`; see `Classifier.export`."""
    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}: choose one of {', '.join(FORMATS)}")
    suffix, write = FORMATS[form]
    source = model.require_weights()
    if model.is_exported:
        raise InputError(f"{source} is an exported model already: export the checkpoint that it was made from")
    out = Path(out) if out is not None else source.with_name(source.stem + ("-int8" if int8 else "") + suffix)
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"{out} is the checkpoint itself: write to another file")
    if write is None:
        if imgsz or batch or half or with_preprocess or int8:
            raise InputError("ultralytics-state holds weights as they are: no size, batch, precision or transform")
        with _told(out):
            return Exported(form, ultralytics_state.write(model, out))
    if out.suffix != suffix:
        raise InputError(f"{out} must end in {suffix}, by which its format is known again")
    if int8 and (form != "onnx" or half or calibrate is None):
        raise InputError("int8 is for format onnx in full precision, and needs a data set to calibrate on")
    if calibrate is not None and not int8:
        raise InputError("a data set to calibrate on is for int8")
    plan = Plan(imgsz or model.imgsz, batch, half, with_preprocess, int8)
    transform = ValTransform(plan.imgsz)
    shown, drawn = images.to_check(source, data if data is not None else calibrate, plan.imgsz)
    about = metadata_of(model, plan)
    expected = Native.fused(model.network, model.criterion, torch.device("cpu"))
    preprocess = Preprocess(plan.imgsz) if with_preprocess else None
    deployed = Deployed(yolov8.fuse(model.network).cpu(), model.criterion.cpu(), half, preprocess).eval()
    used = None
    with _folder_beside(out) as folder:
        fresh = folder / out.name
        write(deployed, plan, about, fresh)
        if int8:
            assert calibrate is not None
            used = quantise(fresh, map(transform, images.to_calibrate(calibrate)), plan)
        runtime = READERS[suffix](fresh, "cuda" if form == "tensorrt" else "cpu", None)
        result = check(expected, runtime, shown, transform, "int8" if int8 else "half" if half else "full", drawn)
        del runtime  # which may hold the file
        place = out if result.passed else out.with_name(f"{out.stem}.failed{out.suffix}")
        files = _move(folder, out, place)
    if not result.passed:
        raise TrainingError(f"the export is not what its checkpoint is: {result}; it is kept as {place}")
    return Exported(form, files, result, used)


def metadata_of(model: TrainedModel, plan: Plan) -> ModelMetadata:
    """What the model file will say about itself."""
    return ModelMetadata(
        size=model.size,
        imgsz=plan.imgsz,
        wnids=model.wnids,
        names=model.names,
        input=UINT8_INPUT if plan.preprocess else FLOAT_INPUT,
        output=PROBABILITIES if plan.preprocess else LOGITS,
        batch=plan.batch,
        transform=ValTransform(plan.imgsz).to_dict(),
        metrics=model.metrics,
        imgtool=checkpoint.version(),
    )


@contextlib.contextmanager
def _told(out: Path) -> Iterator[None]:
    """What goes wrong while it is written, in one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError, as exporters do
        raise CheckpointError(f"cannot write {out}: {first_line(error)}") from error


@contextlib.contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A folder on the same disk, for files that are not whole yet; removed with what is left in it."""
    with _told(out), tempfile.TemporaryDirectory(prefix=".imgtool-export-", dir=out.parent) as folder:
        yield Path(folder)


def _move(folder: Path, out: Path, place: Path) -> list[Path]:
    """All files of the folder, the model first, each named after ``place`` as it was after ``out``."""
    files = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name != out.name):
        sync(path)
        target = place.with_name(place.stem + path.name.removeprefix(out.stem))
        os.replace(path, target)
        files.append(target)
    sync(out.parent)
    return files
