"""Error analysis over one pass of a split: the confusion matrix and the most confident mistakes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from imgtool.pipelines.storage.atomic import write_text
from imgtool.training.evaluation.evaluate import EvaluatedBatch
from imgtool.training.evaluation.plots.confusion import ConfusionMatrix
from imgtool.training.evaluation.plots.mosaic import save_mosaic

MAX_MISTAKES = 36  # images in mistakes.jpg
METRICS = "metrics.json"


class NamedClasses(Protocol):
    """An object with the wnids and names of classes, by class index, such as a data set or a `Classifier`."""

    @property
    def wnids(self) -> Sequence[str]: ...
    @property
    def names(self) -> Sequence[str]: ...


class ErrorAnalysis:
    """Collects predictions and mistakes as an observer of `evaluate`, and draws them.

    It keeps on the device two class indices per image, and the ``max_mistakes`` most confident mistakes with their
    images. A call does not wait for the device.
    """

    def __init__(self, max_mistakes: int = MAX_MISTAKES) -> None:
        self.max_mistakes = max_mistakes
        self._classes: list[Tensor] = []  # per batch int64 [2, N]: true and predicted class
        self._mistakes: list[Tensor] = []  # confidence (-1: no mistake), true class, predicted class, image

    def __call__(self, batch: EvaluatedBatch) -> None:
        """Adds a batch."""
        images, logits, _, labels = batch
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        self._classes.append(torch.stack([labels, predicted]))
        mistaken = torch.where(predicted == labels, -1.0, confidence)
        top = mistaken.topk(min(self.max_mistakes, len(mistaken)))
        columns = [top.values, *(column[top.indices] for column in (labels, predicted, images))]
        if self._mistakes:
            columns = [torch.cat(pair) for pair in zip(self._mistakes, columns, strict=True)]
        kept = columns[0].topk(min(self.max_mistakes, len(columns[0]))).indices
        self._mistakes = [column[kept] for column in columns]

    def save(self, folder: str | Path, classes: NamedClasses, metrics: dict[str, Any]) -> None:
        """Writes metrics.json, the files of `ConfusionMatrix.save` and, if there are mistakes, mistakes.jpg.

        ``metrics`` is the content of metrics.json. Raises OSError when a file cannot be written.
        """
        folder, names = Path(folder), classes.names
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
        true, predicted = torch.cat(self._classes, dim=1).cpu().numpy()
        ConfusionMatrix(true, predicted, classes.wnids, names).save(folder)
        confidence, labels, predicted_as, images = self._mistakes
        mistakes = int((confidence >= 0).sum())
        (folder / "mistakes.jpg").unlink(missing_ok=True)  # may be of an earlier model
        if mistakes:
            columns = (column[:mistakes].tolist() for column in (labels, predicted_as, confidence))
            captions = [
                f"{names[label]}\n{_percent(probability)} {names[predicted]}"
                for label, predicted, probability in zip(*columns, strict=True)
            ]
            save_mosaic(folder / "mistakes.jpg", images[:mistakes], captions)


def _percent(probability: float) -> str:
    """Formats a probability; one a little below 1 is not rounded to 100%."""
    return f"{probability:.1%}" if 0.995 <= probability < 0.9995 else f"{probability:.0%}"
