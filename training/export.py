"""Trained models in the forms that other programs read. A format is a function in `FORMATS`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from imgtool.pipelines.atomic import replacing, write_text
from imgtool.wordnet.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from imgtool.training.classifier import Classifier


def export(classifier: Classifier, form: str, out: str | Path) -> list[Path]:
    """Writes a trained classifier as ``out`` in the format ``form``, a key of `FORMATS`.

    Returns the files written, ``out`` first, each whole or not at all. Raises InputError for an unknown format or an
    ``out`` that is the checkpoint itself, CheckpointError for a model without trained weights or that the format cannot
    hold, and for a file that cannot be written.
    """
    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}: choose one of {', '.join(FORMATS)}")
    out, source = Path(out), classifier.checkpoint
    if source is None:
        raise CheckpointError(f"this {classifier.size} has no trained weights: train it, or give a checkpoint or run")
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"{out} is the checkpoint itself: write to another file")
    try:
        return FORMATS[form](classifier, out)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        raise CheckpointError(f"cannot write {out}: {str(error).splitlines()[0]}") from error


def ultralytics_state(classifier: Classifier, out: Path) -> list[Path]:
    """The state_dict of Ultralytics' ClassificationModel, plain tensors in float32, and beside it, with the ending
    .json, what a state_dict cannot hold: their architecture file, number of classes, image size, and the classes.

        about = json.load(open("out.json"))
        model = ClassificationModel(about["yaml"], nc=about["nc"])
        model.load_state_dict(torch.load("out.pt"))           # strict: every key is there
        model.names = dict(enumerate(about["names"]))
    """
    if classifier.model.num_classes != len(classifier.wnids):
        raise CheckpointError(
            f"a model trained with loss {classifier.loss} gives {classifier.model.num_classes} outputs for "
            f"{len(classifier.wnids)} classes, which no other program can read"
        )
    if out.suffix == ".json":
        raise InputError(f"{out} is where the classes go, beside the weights: give --out the ending .pt")
    about = {
        "yaml": f"yolov8{classifier.size}-cls.yaml",
        "nc": classifier.model.num_classes,
        "imgsz": classifier.imgsz,
        "names": classifier.names,
        "wnids": classifier.wnids,
    }
    with replacing(out) as temporary, open(temporary, "wb") as file:
        torch.save({key: tensor.contiguous() for key, tensor in classifier.model.state_dict().items()}, file)
    sidecar = out.with_suffix(".json")
    write_text(sidecar, json.dumps(about, indent=1) + "\n")
    return [out, sidecar]


FORMATS: dict[str, Callable[[Classifier, Path], list[Path]]] = {"ultralytics-state": ultralytics_state}
