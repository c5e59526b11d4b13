"""A network with everything that is needed to use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from imgtool.training.models import losses
from imgtool.training.models.losses import Loss
from imgtool.wordnet.errors import CheckpointError


@dataclass
class TrainedModel:
    """A network, its classes and where its weights come from. ``path`` is None for random weights.

    ``wnids`` and ``names`` are in the order of the logits, and empty for a network that has no classes yet.
    """

    network: nn.Module
    size: str  # n, s, m, l, x; or another library's network, timm:resnet50
    wnids: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    imgsz: int = 224  # pixels per side at validation
    loss: str = "ce"  # NAME or NAME:option=value,…: how outputs become class scores depends on it
    metrics: dict[str, Any] | None = None  # validation metrics of the checkpoint's epoch
    path: Path | None = None
    is_exported: bool = False  # the network is an exported model: it can be run, but not trained or exported
    criterion: Loss = field(init=False)

    def __post_init__(self) -> None:
        self.criterion = losses.from_spec(self.loss, self.wnids)

    def require_weights(self) -> Path:
        """Returns where the weights come from. Raises CheckpointError if they are random."""
        if self.path is None:
            raise CheckpointError(
                f"this {self.size} model has no trained weights: train it, or give a checkpoint or run"
            )
        return self.path
