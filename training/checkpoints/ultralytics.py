"""Reads Ultralytics' YOLOv8-cls checkpoints (yolov8n-cls.pt … yolov8x-cls.pt, or a training's best.pt) as data.

Such a file pickles a whole ClassificationModel, in half precision. It is never unpickled here (see
`imgtool.training.checkpoints.safe_pickle`), and Ultralytics need not be installed. The tensors are taken from the
pickled modules, and the modules' settings are compared with our architecture's, so that a model that loads computes the
same function.

Three conversions leave that function unchanged:

- The classes, and the rows of the last layer, are sorted by wnid.
- A batch norm with another epsilon gets ours, and the difference is added to its running variance, since only their
  sum matters. This is exact up to float32 rounding.
- A convolution that was fused with its batch norm gets a batch norm that only adds the bias.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imgtool.training.checkpoints import safe_pickle
from imgtool.training.checkpoints.content import is_text
from imgtool.training.checkpoints.safe_pickle import PickledObject
from imgtool.training.models import yolov8
from imgtool.training.recipes import MAX_IMGSZ
from imgtool.wordnet import class_table
from imgtool.wordnet.errors import CheckpointError, InputError
from imgtool.wordnet.imagenet.class_names import ilsvrc2012_wnids_of
from imgtool.wordnet.tables.nouns import is_wnid

MODEL = "ultralytics.nn.tasks.ClassificationModel"
STEM = yolov8.STAGES[0][0] // 2  # channels of the first convolution, before the width multiplies
IMGSZ = 224  # of the published weights

# The settings of a layer, beside its tensors, that determine what it computes
LAYER_SETTINGS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
    nn.AdaptiveAvgPool2d: ("output_size",),
}


def recognises(path: str | Path) -> bool:
    """Whether this is a torch file that names Ultralytics' modules, and not one of imgtool's checkpoints."""
    names = safe_pickle.pickle_of(path)
    return b"ultralytics." in names and b"imgtool-checkpoint-" not in names


def load(path: str | Path) -> dict[str, Any]:
    """Returns an Ultralytics checkpoint as the dict that `checkpoint.load` returns: float32 weights, an empty recipe,
    and nothing to resume from.

    Raises CheckpointError for a file that is truncated, malicious, or of a model that is not one of the five sizes.
    """
    content = safe_pickle.read(path)
    try:
        return _convert(content)
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _convert(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CheckpointError(f"contains a {_class_name(content)}; Ultralytics' checkpoints contain a dict")
    model = content.get("model") if content.get("ema") is None else content["ema"]  # a finished training has no ema
    model = _find(model, "module") or model  # in a DataParallel or DistributedDataParallel
    if not isinstance(model, PickledObject) or model.class_name != MODEL:
        raise CheckpointError(f"its model is a {_class_name(model)}; imgtool reads YOLOv8-cls only, which is a {MODEL}")

    size, num_classes = _shape(model)
    with torch.device("meta"):
        ours = yolov8.build(size, num_classes)
    weights: dict[str, Tensor] = {}
    _collect_weights(ours, model, "", weights)

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
        "epoch": 1,  # trained; the published files do not state the number of epochs
        "metrics": None,
        "recipe": {},
        "ema": weights,
        "resume": None,
    }


def _shape(model: PickledObject) -> tuple[str, int]:
    """Returns the size, by the first convolution's channels, and the number of classes, by the last layer's rows."""
    stem, head = _find(model, "model.0.conv"), _find(model, "model.9.linear")
    first = _dict_of(stem, "_parameters").get("weight") if stem else None
    last = _dict_of(head, "_parameters").get("weight") if head else None
    if isinstance(first, Tensor) and first.dim() == 4 and isinstance(last, Tensor) and last.dim() == 2 and len(last):
        for size, multiples in yolov8.SCALES.items():
            if math.ceil(STEM * multiples.width / 8) * 8 == len(first):
                return size, len(last)
    raise CheckpointError(f"its layers do not fit YOLOv8-cls of any size ({', '.join(yolov8.SCALES)})")


def _collect_weights(ours: nn.Module, theirs: Any, name: str, weights: dict[str, Tensor]) -> None:
    """Checks the pickled module ``theirs`` against ``ours`` and adds its tensors to ``weights``; recurses into its
    children. ``name`` is the module's dotted name."""
    kind = type(ours).__name__
    if not isinstance(theirs, PickledObject) or theirs.class_name.rsplit(".", 1)[-1] != kind:
        raise CheckpointError(f"{name} is a {_class_name(theirs)}; in YOLOv8-cls it is a {kind}")
    settings = {key: getattr(ours, key) for key in LAYER_SETTINGS.get(type(ours), ())}
    if isinstance(ours, yolov8.Bottleneck):
        settings["add"] = True  # the shortcut
    for key, value in settings.items():
        if _plain(theirs.get(key)) != value:
            raise CheckpointError(f"{name}.{key} differs from YOLOv8-cls's, which is {value}")

    children = dict(_dict_of(theirs, "_modules"))
    if isinstance(ours, yolov8.Conv) and "bn" not in children:
        children["bn"] = _norm_of_bias(children.get("conv"))
    expected = dict(ours.named_children())
    if extra := [key for key in children if key not in expected]:
        raise CheckpointError(f"{name} has a module {str(extra[0])[:40]!r}, which YOLOv8-cls does not have")
    tensors = _dict_of(theirs, "_parameters") | _dict_of(theirs, "_buffers")
    for key, like in (*ours.named_parameters(recurse=False), *ours.named_buffers(recurse=False)):
        tensor = tensors.get(key)
        full = f"{name}.{key}"
        if not isinstance(tensor, Tensor) or tensor.shape != like.shape:
            found = list(tensor.shape) if isinstance(tensor, Tensor) else f"a {_class_name(tensor)}"
            raise CheckpointError(f"{full} is {found}; in YOLOv8-cls it is {list(like.shape)}")
        weights[full] = tensor.to(like.dtype, copy=True).contiguous()
    if isinstance(ours, nn.BatchNorm2d):
        eps = theirs.get("eps")
        if not isinstance(eps, float) or not 0 <= eps < 1:
            raise CheckpointError(f"{name}.eps is missing or not in [0, 1)")
        if eps != ours.eps:
            variance = weights[f"{name}.running_var"]
            variance.copy_(variance.double() + (eps - ours.eps))
    for key, child in expected.items():
        _collect_weights(child, children.get(key), f"{name}.{key}" if name else key, weights)


def _norm_of_bias(conv: Any) -> PickledObject | None:
    """Returns the batch norm that only adds the bias of a fused convolution; None if that has no bias."""
    bias = _dict_of(conv, "_parameters").get("bias")
    if not isinstance(bias, Tensor):
        return None
    norm = PickledObject("torch.nn.BatchNorm2d")
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
    """Returns the class of each logit: wnids if the names are wnids or ILSVRC2012's names, else the names."""
    if isinstance(names, dict):
        names = [names.get(index) for index in range(num_classes)] if len(names) == num_classes else None
    if not isinstance(names, list) or len(names) != num_classes or not all(map(is_text, names)):
        raise CheckpointError(f"it does not name its {num_classes} classes")
    if not all(is_wnid(name) for name in names):
        names = ilsvrc2012_wnids_of(names) or names
    # classes must be distinct: the second and later ones of the same name get their index appended
    first = {name: index for index, name in reversed(list(enumerate(names)))}
    return [name if first[name] == index else f"{name} ({index})" for index, name in enumerate(names)]


def _imgsz(train_args: Any) -> int:
    """Returns the image size in the training's arguments, which may be a pair of sides; 224 if there is none."""
    side = train_args.get("imgsz") if isinstance(train_args, dict) else None
    if isinstance(side, list | tuple) and side:
        side = side[0]
    return side if type(side) is int and yolov8.STRIDE <= side <= MAX_IMGSZ else IMGSZ


def _dropout(model: PickledObject) -> float:
    drop = _find(model, "model.9.drop")
    rate = drop.get("p") if drop else None
    return float(rate) if isinstance(rate, float | int) and 0 <= rate < 1 else 0.0


def _find(module: Any, name: str) -> PickledObject | None:
    """Returns a pickled submodule by its dotted name."""
    for key in name.split("."):
        module = _dict_of(module, "_modules").get(key)
    return module if isinstance(module, PickledObject) else None


def _dict_of(module: Any, name: str) -> dict[Any, Any]:
    """Returns an attribute of a pickled module that is a dict in every module; an empty dict if it is not there."""
    value = module.get(name) if isinstance(module, PickledObject) else None
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> Any:
    """Returns a number, a string or a tuple of these, to compare with our setting; None for any other value."""
    simple = (int, float, str)
    if isinstance(value, tuple):
        return value if all(isinstance(item, simple) for item in value) else None
    return value if isinstance(value, simple) else None


def _class_name(value: Any) -> str:
    return value.class_name[:100] if isinstance(value, PickledObject) else type(value).__name__
