"""Opens trained models of every kind, and makes them run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imgtool.training.checkpoints import checkpoint, ultralytics
from imgtool.training.models import registry
from imgtool.training.models.trained import TrainedModel
from imgtool.training.models.yolov8 import SCALES
from imgtool.training.parallel.device import resolve_device
from imgtool.training.runtimes import readers
from imgtool.training.runtimes.native import Native
from imgtool.training.runtimes.runtime import Runtime
from imgtool.wordnet.errors import CheckpointError, InputError, listed


def open_model(name: str | Path, device: str | None = None, threads: int | None = None) -> TrainedModel:
    """Opens a model by name.

    A size, ``timm:NAME`` or ``torchvision:NAME`` is an untrained network. Any other name is a run directory or a file:
    a checkpoint of imgtool or Ultralytics, or an exported model. Only an exported model uses ``device``, and on a CPU
    ``threads``.

    Raises InputError for an unknown network, CheckpointError for a file that is missing or damaged.
    """
    if str(name) in SCALES or registry.is_arch(str(name)):
        return TrainedModel(registry.build(str(name)), str(name))
    if not Path(name).exists():
        sizes = ", ".join(SCALES)
        run = Path("runs", name)  # where trainings are saved by default
        hint = f"; did you mean {run}?" if run.is_dir() else ""
        raise CheckpointError(f"{name} is neither a size ({sizes}) nor a checkpoint or run directory that exists{hint}")
    path = checkpoint.find(name)
    if readers.recognises(path):
        return _exported(path, readers.read(path, device, threads))
    content = ultralytics.load(path) if ultralytics.recognises(path) else checkpoint.load(path)
    return from_checkpoint(path, content)


def from_checkpoint(path: Path, content: dict[str, Any]) -> TrainedModel:
    """Builds the model of a checkpoint's content. Raises CheckpointError if the weights do not fit the network."""
    recipe = content["recipe"]
    try:
        model = TrainedModel(
            nn.Identity(),
            content["size"],
            content["wnids"],
            content["names"],
            content["imgsz"],
            recipe.get("loss", "ce"),
            content["metrics"],
            path if content["epoch"] > 0 else None,
        )
        network = (model.size, model.criterion.outputs, content["dropout"], recipe.get("drop_path", 0.0))
        _check_fit(network, content["ema"])
        model.network = registry.build(*network)
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from None
    try:
        model.network.load_state_dict(content["ema"])
    except RuntimeError:
        raise CheckpointError(f"{path}: the weights do not fit the network {content['size']}") from None
    model.network.eval()
    return model


def _check_fit(network: tuple[str, int, float, float], weights: dict[str, Tensor]) -> None:
    """Raises CheckpointError unless the weights have the network's names and shapes. This is checked before memory is
    taken for a network that the file may only claim to have."""
    try:
        with torch.device("meta"):
            expected = registry.build(*network).state_dict()
    except (NotImplementedError, RuntimeError):  # a network of another library may not be built without memory
        return
    wrong = expected.keys() ^ weights.keys()
    wrong |= {name for name in expected.keys() & weights.keys() if expected[name].shape != weights[name].shape}
    if wrong:
        raise CheckpointError(f"the weights do not fit the network {network[0]}: {listed(sorted(wrong), most=1)}")


def _exported(path: Path, runtime: Runtime) -> TrainedModel:
    """Wraps an exported model. Its outputs are logits per class, whichever loss it was trained with."""
    metadata = runtime.metadata
    return TrainedModel(
        runtime,
        metadata.size,
        metadata.wnids,
        metadata.names,
        runtime.imgsz,
        metrics=metadata.metrics,
        path=path,
        is_exported=True,
    )


def runner(model: TrainedModel, device: str | None = None) -> tuple[nn.Module, torch.device]:
    """Returns a module uint8 images [N, 3, imgsz, imgsz] → float32 logits per class [N, classes], and its device.

    An exported model stays on the device that it was opened on. Raises InputError for a device that is not available.
    """
    if isinstance(model.network, Runtime):
        return model.network, model.network.device
    torch_device = resolve_device(device)
    return Native.fused(model.network, model.criterion, torch_device), torch_device
