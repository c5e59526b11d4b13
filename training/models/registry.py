"""Other networks for the same loop: ``timm:NAME`` and ``torchvision:NAME``, untrained."""

from typing import Any

from torch import nn

from imgtool.training.models import yolov8
from imgtool.wordnet.errors import InputError, first_line

LIBRARIES = ("timm", "torchvision")


def is_arch(name: str) -> bool:
    """Whether this names a network of another library rather than a size or a path."""
    return name.partition(":")[0] in LIBRARIES and ":" in name


def build(name: str, num_classes: int = 1000, dropout: float = 0.0, drop_path: float = 0.0) -> nn.Module:
    """A freshly initialised network of a size (n, s, m, l, x) or of another library, from torch's global random state:
    float [N, 3, H, W] in 0..1 → logits [N, num_classes].

    ``dropout`` and ``drop_path`` are passed on where the network has them. Raises InputError for an unknown name, a
    library that is not installed, or a setting that the network does not take.
    """
    if not is_arch(name):
        return yolov8.build(name, num_classes, dropout, drop_path)
    library, _, arch = name.partition(":")
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
            from torchvision.models import get_model

            network = get_model(arch, weights=None, **options)
    except ImportError:
        raise InputError(f"--arch {name} needs timm: pip install 'imgtool[timm]'") from None
    except TypeError as error:
        raise InputError(f"--arch {name} does not take these settings: {error}") from None
    except (RuntimeError, ValueError) as error:
        raise InputError(f"--arch {name}: {library} has no such network ({first_line(error)})") from None
    return network


def head(model: nn.Module) -> str:
    """The name of the layer that makes the logits: the last linear one, or the last convolution where there is none."""
    for kind in (nn.Linear, nn.Conv2d):
        found = [name for name, module in model.named_modules() if isinstance(module, kind)]
        if found:
            return found[-1]
    raise InputError(f"{type(model).__name__} has no layer that makes logits")
