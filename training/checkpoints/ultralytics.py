"""Ultralytics' checkpoints of YOLOv8-cls (yolov8n-cls.pt … yolov8x-cls.pt, or a training's best.pt), read as data.

Such a file pickles a whole ClassificationModel, in half precision. Here it is never unpickled (see
`imgtool.training.checkpoints.safe_pickle`), and Ultralytics is not needed: the tensors are taken from the records of
its modules, and what the records state of the architecture is compared with ours, so that what loads computes what
theirs does.

Three things change at this border and leave the function as it is:

- Classes come in imgtool's order, sorted by wnid, and the rows of the last layer with them.
- A batch norm whose epsilon is not ours takes ours, and the difference goes into its running variance, since only
  the sum of the two counts: exact to float32's rounding, and nothing need be remembered from there on.
- A convolution that was fused with its norm gets a norm that adds the bias and does nothing else.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imgtool.training.checkpoints import safe_pickle
from imgtool.training.checkpoints.safe_pickle import Record
from imgtool.training.models import yolov8
from imgtool.wordnet import class_table
from imgtool.wordnet.errors import CheckpointError, InputError
from imgtool.wordnet.imagenet.class_names import ilsvrc2012_wnids_of
from imgtool.wordnet.tables.nouns import is_wnid

MODEL = "ultralytics.nn.tasks.ClassificationModel"
STEM = yolov8.STAGES[0][0] // 2  # channels of the first convolution, before the width multiplies
IMGSZ = 224  # the published weights'

# What a layer of each kind states, beside its tensors, that decides what it computes.
STATED: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
    nn.AdaptiveAvgPool2d: ("output_size",),
}


def recognises(path: str | Path) -> bool:
    """Whether a file is to be read here: a torch archive that names Ultralytics' modules, and not imgtool's format."""
    names = safe_pickle.pickle_of(path)
    return b"ultralytics." in names and b"imgtool-checkpoint-" not in names


def load(path: str | Path) -> dict[str, Any]:
    """An Ultralytics checkpoint in the form of `checkpoint.load`'s: float32, no recipe, nothing to resume.

    Raises CheckpointError for a file that is truncated, malicious, or of another model than the five sizes.
    """
    content = safe_pickle.read(path)
    try:
        return _convert(content)
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _convert(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CheckpointError(f"holds a {_kind(content)} where Ultralytics' checkpoints have a dict")
    model = content.get("model") if content.get("ema") is None else content["ema"]  # a finished training has no ema
    model = _find(model, "module") or model  # within DataParallel or DistributedDataParallel
    if not isinstance(model, Record) or model.kind != MODEL:
        raise CheckpointError(f"its model is a {_kind(model)}, and imgtool reads YOLOv8-cls, a {MODEL}")

    size, num_classes = _shape(model)
    with torch.device("meta"):
        ours = yolov8.build(size, num_classes)
    weights: dict[str, Tensor] = {}
    _take(ours, model, "", weights)

    classes = _classes(model.get("names"), num_classes)
    order = sorted(range(num_classes), key=classes.__getitem__)
    for key in ("model.9.linear.weight", "model.9.linear.bias"):
        weights[key] = weights[key][order]
    wnids = [classes[index] for index in order]
    return {
        "size": size,
        "dropout": _dropout(model),
        "imgsz": _imgsz(content.get("train_args")),
        "wnids": wnids,
        "names": class_table(wnids)["name"],
        "epoch": 1,  # it is trained; for how many epochs, the published files do not say
        "metrics": None,
        "recipe": {},
        "ema": weights,
        "resume": None,
    }


def _shape(model: Record) -> tuple[str, int]:
    """The size, by the first convolution's channels, and the number of classes, by the last layer's rows."""
    stem, head = _find(model, "model.0.conv"), _find(model, "model.9.linear")
    first = _part(stem, "_parameters").get("weight") if stem else None
    last = _part(head, "_parameters").get("weight") if head else None
    if isinstance(first, Tensor) and first.dim() == 4 and isinstance(last, Tensor) and last.dim() == 2 and len(last):
        for size, scale in yolov8.SCALES.items():
            if math.ceil(STEM * scale.width / 8) * 8 == len(first):
                return size, len(last)
    raise CheckpointError(f"its layers are not YOLOv8-cls's, of any of the sizes {', '.join(yolov8.SCALES)}")


def _take(ours: nn.Module, theirs: Any, name: str, weights: dict[str, Tensor]) -> None:
    """Compares a layer with its record, and puts its tensors into ``weights``; then its parts' likewise."""
    kind = type(ours).__name__
    if not isinstance(theirs, Record) or theirs.kind.rsplit(".", 1)[-1] != kind:
        raise CheckpointError(f"{name} is a {_kind(theirs)}, which is a {kind} in YOLOv8-cls")
    stated = {key: getattr(ours, key) for key in STATED.get(type(ours), ())}
    if isinstance(ours, yolov8.Bottleneck):
        stated["add"] = True  # the shortcut
    for key, value in stated.items():
        if _plain(theirs.get(key)) != value:
            raise CheckpointError(f"{name} has another {key} than YOLOv8-cls's, which is {value}")

    parts = dict(_part(theirs, "_modules"))
    if isinstance(ours, yolov8.Conv) and "bn" not in parts:
        parts["bn"] = _norm_of_bias(parts.get("conv"))
    expected = dict(ours.named_children())
    if extra := [key for key in parts if key not in expected]:
        raise CheckpointError(f"{name} has a part {str(extra[0])[:40]!r}, which YOLOv8-cls has not")
    tensors = _part(theirs, "_parameters") | _part(theirs, "_buffers")
    for key, like in (*ours.named_parameters(recurse=False), *ours.named_buffers(recurse=False)):
        tensor = tensors.get(key)
        full = f"{name}.{key}"
        if not isinstance(tensor, Tensor) or tensor.shape != like.shape:
            found = list(tensor.shape) if isinstance(tensor, Tensor) else f"a {_kind(tensor)}"
            raise CheckpointError(f"{full} is {found}, which is {list(like.shape)} in YOLOv8-cls")
        weights[full] = tensor.to(like.dtype, copy=True).contiguous()
    if isinstance(ours, nn.BatchNorm2d):
        eps = theirs.get("eps")
        if not isinstance(eps, float) or not 0 <= eps < 1:
            raise CheckpointError(f"{name} has no epsilon")
        if eps != ours.eps:
            variance = weights[f"{name}.running_var"]
            variance.copy_(variance.double() + (eps - ours.eps))
    for key, part in expected.items():
        _take(part, parts.get(key), f"{name}.{key}" if name else key, weights)


def _norm_of_bias(conv: Any) -> Record | None:
    """The norm that the bias of a fused convolution amounts to; None if it has none."""
    bias = _part(conv, "_parameters").get("bias")
    if not isinstance(bias, Tensor):
        return None
    norm = Record("torch.nn.BatchNorm2d")
    bias = bias.float()
    norm.attributes = {
        "eps": 0.0,  # with a variance of 1: the division is by 1
        "_parameters": {"weight": torch.ones_like(bias), "bias": bias},
        "_buffers": {
            "running_mean": torch.zeros_like(bias),
            "running_var": torch.ones_like(bias),
            "num_batches_tracked": torch.tensor(0),
        },
    }
    return norm


def _classes(names: Any, num_classes: int) -> list[str]:
    """The class of each logit: a wnid where the names are wnids or ILSVRC2012's, else the name."""
    if isinstance(names, dict):
        names = [names.get(index) for index in range(num_classes)] if len(names) == num_classes else None
    if not isinstance(names, list) or len(names) != num_classes or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"it has no names for its {num_classes} classes")
    if not all(is_wnid(name) for name in names):
        names = ilsvrc2012_wnids_of(names) or names
    # Of classes by one name the further ones get their number: what data set they are of cannot be told anyway.
    first = {name: index for index, name in reversed(list(enumerate(names)))}
    return [name if first[name] == index else f"{name} ({index})" for index, name in enumerate(names)]


def _imgsz(train_args: Any) -> int:
    """The side that the training's arguments state, which may be a pair."""
    side = train_args.get("imgsz") if isinstance(train_args, dict) else None
    if isinstance(side, list | tuple) and side:
        side = side[0]
    return side if type(side) is int and yolov8.STRIDE <= side <= 4096 else IMGSZ


def _dropout(model: Record) -> float:
    drop = _find(model, "model.9.drop")
    rate = drop.get("p") if drop else None
    return float(rate) if isinstance(rate, float | int) and 0 <= rate < 1 else 0.0


def _find(record: Any, name: str) -> Record | None:
    """The record of a module by its dotted name."""
    for key in name.split("."):
        record = _part(record, "_modules").get(key)
    return record if isinstance(record, Record) else None


def _part(record: Any, name: str) -> dict[Any, Any]:
    """An attribute that is a dict in every module, or an empty one."""
    value = record.get(name) if isinstance(record, Record) else None
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> Any:
    """A setting to compare with ours: numbers, text, or a short tuple of them."""
    simple = (int, float, str)
    if isinstance(value, tuple):
        return value if all(isinstance(item, simple) for item in value) else None
    return value if isinstance(value, simple) else None


def _kind(value: Any) -> str:
    return value.kind[:100] if isinstance(value, Record) else type(value).__name__
