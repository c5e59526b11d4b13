"""The state_dict of Ultralytics' ClassificationModel: weights to go on with there."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from imgtool.pipelines.storage.atomic import atomic_write, write_text
from imgtool.training.models.trained import TrainedModel
from imgtool.training.models.yolov8 import ClassificationModel
from imgtool.wordnet.errors import CheckpointError, InputError


def write(model: TrainedModel, out: Path) -> list[Path]:
    """The state_dict of Ultralytics' ClassificationModel, plain tensors in float32, and beside it, with the ending
    .json, what a state_dict cannot hold: their architecture file, number of classes, image size, and the classes.

        about = json.load(open("out.json"))
        model = ClassificationModel(about["yaml"], nc=about["nc"])
        model.load_state_dict(torch.load("out.pt"))           # strict: every key is there
        model.names = dict(enumerate(about["names"]))
    """
    network = model.network
    if not isinstance(network, ClassificationModel):
        raise CheckpointError(f"{model.size} is none of Ultralytics' networks, so they cannot load its weights")
    if network.num_classes != len(model.wnids):
        raise CheckpointError(
            f"a model trained with loss {model.loss} gives {network.num_classes} outputs for "
            f"{len(model.wnids)} classes, which no other program can read"
        )
    if out.suffix == ".json":
        raise InputError(f"{out} is where the classes go, beside the weights: give --out the ending .pt")
    about = {
        "yaml": f"yolov8{model.size}-cls.yaml",
        "nc": network.num_classes,
        "imgsz": model.imgsz,
        "names": model.names,
        "wnids": model.wnids,
    }
    with atomic_write(out) as temporary, open(temporary, "wb") as file:
        torch.save({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, file)
    sidecar = out.with_suffix(".json")
    write_text(sidecar, json.dumps(about, indent=1) + "\n")
    return [out, sidecar]
