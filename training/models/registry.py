"""Networks by name: the sizes of YOLOv8-cls, and ``timm:NAME`` and ``torchvision:NAME``, untrained."""

import re
from typing import Any

from torch import nn

from imgtool.training.models import yolov8
from imgtool.wordnet.errors import InputError, first_line

LIBRARIES = ("timm", "torchvision")


def is_arch(name: str) -> bool:
    """Whether this is the name of another library's network, and not a size or a path."""
    return name.partition(":")[0] in LIBRARIES and ":" in name


def build(name: str, num_classes: int = 1000, dropout: float = 0.0, drop_path: float = 0.0) -> nn.Module:
    """Returns a new network, float [N, 3, H, W] in 0..1 → logits [N, num_classes], with random weights from torch's
    global random state. ``name`` is a size (n, s, m, l, x) or another library's network.

    Raises InputError for an unknown name, a library that is not installed, or a dropout or drop_path that the network
    does not support.
    """
    if not is_arch(name):
        return yolov8.build(name, num_classes, dropout, drop_path)
    library, _, arch = name.partition(":")
    if not re.fullmatch(r"[\w.]+", arch):  # timm downloads hf-hub:USER/NAME and reads local-dir:PATH
        raise InputError(f"--arch {name[:100]}: {arch[:100]!r} is not the name of a network")
    options: dict[str, Any] = {"num_classes": num_classes}
    if library == "timm":
        options |= {"drop_rate": dropout, "drop_path_rate": drop_path} if dropout or drop_path else {}
    elif dropout or drop_path:
        names = {"dropout": dropout, "stochastic_depth_prob": drop_path}
        options |= {key: value for key, value in names.items() if value}
    try:
        if library == "timm":
            import timm

            network: nn.Module = timm.create_model(arch, pretrained=False, **options)
        else:
            from torchvision import models

            if arch not in models.list_models(module=models):  # those for detection download weights of their backbone
                raise ValueError(f"unknown model {arch}")
            network = models.get_model(arch, weights=None, **options)
    except ImportError:
        raise InputError(f"--arch {name} needs timm: pip install 'imgtool[timm]'") from None
    except TypeError as error:
        raise InputError(f"--arch {name} does not support the recipe's settings: {error}") from None
    except (RuntimeError, ValueError) as error:
        raise InputError(f"--arch {name}: {library} cannot build this network: {first_line(error)}") from None
    return network


def head(model: nn.Module) -> str:
    """Returns the name of the layer that outputs the logits: the last linear layer, or else the last convolution."""
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, module in model.named_modules() if isinstance(module, kind)]
        if names:
            return names[-1]
    raise InputError(f"{type(model).__name__} has neither a linear layer nor a convolution that outputs the logits")
