"""What is looked at when a model is trained: one pass over a split for the confusions and the surest mistakes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from imgtool.pipelines.storage.atomic import write_text
from imgtool.training.evaluation.evaluate import Evaluated
from imgtool.training.evaluation.plots.confusion import Confusion
from imgtool.training.evaluation.plots.mosaic import save_mosaic

MISTAKES = 36  # images in mistakes.jpg
METRICS = "metrics.json"


class Classes(Protocol):
    """What names the classes, in the order of their indices: a data set, a `Classifier`."""

    @property
    def wnids(self) -> Sequence[str]: ...
    @property
    def names(self) -> Sequence[str]: ...


class ErrorAnalysis:
    """Collects predictions and mistakes as an observer of `evaluate`, and draws them.

    On the device it keeps two class indices an image and the ``keep`` surest mistakes, images and all; nothing in a
    call waits for the device.
    """

    def __init__(self, keep: int = MISTAKES) -> None:
        self.keep = keep
        self._classes: list[Tensor] = []  # int64 [2, N] a batch: true and predicted
        self._mistakes: list[Tensor] = []  # confidence, true, predicted, images; -1 is the confidence of what was right

    def __call__(self, batch: Evaluated) -> None:
        """Takes a batch in."""
        images, logits, _, labels = batch
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        self._classes.append(torch.stack([labels, predicted]))
        wrong = torch.where(predicted == labels, -1.0, confidence)
        sure = wrong.topk(min(self.keep, len(wrong)))
        found = [sure.values, *(part[sure.indices] for part in (labels, predicted, images))]
        if self._mistakes:
            found = [torch.cat(pair) for pair in zip(self._mistakes, found, strict=True)]
        best = found[0].topk(min(self.keep, len(found[0]))).indices
        self._mistakes = [part[best] for part in found]

    def save(self, folder: str | Path, classes: Classes, metrics: dict[str, Any]) -> None:
        """Writes metrics.json, the files of `Confusion.save` and, unless all was right, mistakes.jpg to ``folder``.

        ``metrics``: what is to stand in metrics.json. Raises OSError when they cannot be written.
        """
        folder, names = Path(folder), classes.names
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
        true, predicted = torch.cat(self._classes, dim=1).cpu().numpy()
        Confusion(true, predicted, classes.wnids, names).save(folder)
        confidence, labels, taken_for, images = self._mistakes
        wrong = int((confidence >= 0).sum())
        (folder / "mistakes.jpg").unlink(missing_ok=True)  # those of an earlier pass are not of this model
        if wrong:
            rows = zip(labels[:wrong].tolist(), taken_for[:wrong].tolist(), confidence.tolist(), strict=False)
            captions = [f"{names[label]}\n{_percent(sure)} {names[guess]}" for label, guess, sure in rows]
            save_mosaic(folder / "mistakes.jpg", images[:wrong], captions)


def _percent(part: float) -> str:
    """A probability that is not shown as certainty unless it is."""
    return f"{part:.1%}" if 0.995 <= part < 0.9995 else f"{part:.0%}"
