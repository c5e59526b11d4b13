"""Writes the state_dict of Ultralytics' ClassificationModel, to continue there with the weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from imgtool.pipelines.storage.atomic import atomic_write, write_text
from imgtool.training.models.trained import TrainedModel
from imgtool.training.models.yolov8 import ClassificationModel
from imgtool.wordnet.errors import CheckpointError, InputError


def write(model: TrainedModel, out: Path) -> list[Path]:
    """Writes the state_dict (float32 tensors) to ``out``, and a .json next to it. Returns both paths.

    The .json has what a state_dict lacks: architecture file, number of classes, image size, and the classes.

        info = json.load(open("out.json"))
        model = ClassificationModel(info["yaml"], nc=info["nc"])
        model.load_state_dict(torch.load("out.pt"))           # strict: all keys match
        model.names = dict(enumerate(info["names"]))

    Raises CheckpointError for a network that Ultralytics does not have, InputError if ``out`` ends in .json.
    """
    network = model.network
    if not isinstance(network, ClassificationModel):
        raise CheckpointError(
            f"Ultralytics has no network {model.size}: ultralytics-state is only for sizes n, s, m, l and x"
        )
    if network.num_classes != len(model.wnids):
        raise CheckpointError(
            f"Ultralytics cannot use a model trained with loss {model.loss}: it has {network.num_classes} outputs for "
            f"{len(model.wnids)} classes"
        )
    if out.suffix == ".json":
        raise InputError(
            f"--out {out}: the .json is for the classes, next to the weights: give a name that ends in .pt"
        )
    info = {
        "yaml": f"yolov8{model.size}-cls.yaml",
        "nc": network.num_classes,
        "imgsz": model.imgsz,
        "names": model.names,
        "wnids": model.wnids,
    }
    with atomic_write(out) as temporary, open(temporary, "wb") as file:
        torch.save({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, file)
    sidecar = out.with_suffix(".json")
    write_text(sidecar, json.dumps(info, indent=1) + "\n")
    return [out, sidecar]
