"""Top-1, top-5 and loss of a model over a loader's batches."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtool.training.evaluation.per_class import PerClass
from imgtool.training.parallel.distributed import World
from imgtool.wordnet.errors import DatasetError
from imgtool.wordnet.evaluation import Evaluation
from imgtool.wordnet.metrics import Metric

Batches = Iterable[tuple[Tensor, Tensor]]  # (images uint8 [N, 3, H, W], labels int64 [N]), both on the device


@dataclass(frozen=True)
class Metrics:
    """Of a whole split. Accuracies are fractions 0..1; ``loss`` is the mean cross-entropy without smoothing, in nats.

    With fewer than five classes top-5 is top-(number of classes).
    """

    top1: float
    top5: float
    loss: float
    images: int
    seconds: float
    hierarchy: dict[str, Metric] | None = None  # where asked for: how bad the mistakes are, by imgtool.wordnet.metrics
    classes: int | None = None  # that the model was let choose from: all of its own, or the data's alone

    def to_dict(self) -> dict[str, Any]:
        out = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "hierarchy"}
        if self.hierarchy is not None:
            out["hierarchy"] = {name: metric.to_dict() for name, metric in self.hierarchy.items()}
        return out


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Batches,
    device: torch.device,
    class_map: Tensor | None = None,
    class_scores: Callable[[Tensor], Tensor] | None = None,
    evaluation: Evaluation | None = None,
    among: Tensor | None = None,
    per_class: PerClass | None = None,
    world: World | None = None,
    observe: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> Metrics:
    """Top-1, top-5 and loss over all ``batches``.

    ``class_map`` int64 [dataset classes] gives the model's class index of a dataset's class index, where they differ.
    ``model`` is a runner (imgtool.training.runtimes): uint8 images → logits per class; ``class_scores`` turns these
    into logits of other classes, a label map's targets.
    ``among`` int64 [K] are the model's classes to choose from: the others' logits count for nothing, in the loss and
    in probabilities too. Default: all.
    ``evaluation`` is given the first five predictions and the labels, class indices of the model, and its results
    become the metrics' ``hierarchy``; so is ``per_class``, and the logits.
    ``observe`` is called with each batch's images, logits and labels (imgtool.training.evaluation.error_analysis).
    Counts are exact integers, kept on the device and read once at the end. Leaves the model in the mode it was in. With
    several processes (``world``) each gives its own batches, and all get the metrics of all.
    Raises DatasetError when there is no image.
    """
    started, training = time.perf_counter(), model.training
    model.eval()
    images_seen = 0
    right = torch.zeros(2, dtype=torch.int64, device=device)  # at the first place, among the first five
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    class_map = None if class_map is None else class_map.to(device)
    among = None if among is None else among.to(device)
    classes = 0
    for images, labels in batches:
        if class_map is not None:
            labels = class_map[labels]
        outputs = model(images)
        logits = outputs if class_scores is None else class_scores(outputs)
        if among is not None:
            logits = torch.full_like(logits, -torch.inf).index_copy(1, among, logits[:, among])
        classes = logits.shape[1] if among is None else len(among)
        best = logits.topk(min(5, classes), dim=1).indices
        if evaluation is not None:
            evaluation.update(best, labels)
        if per_class is not None:
            per_class.update(logits, best, labels)
        if observe is not None:
            observe(images, logits, labels)
        hits = best == labels[:, None]
        right += torch.stack([hits[:, 0].sum(), hits.sum()])
        loss_sum += F.cross_entropy(logits, labels, reduction="sum")
        images_seen += len(labels)
    model.train(training)
    if world is not None:
        totals = world.sum(torch.cat([right.double(), loss_sum[None], torch.full_like(loss_sum[None], images_seen)]))
        right, loss_sum, images_seen = totals[:2], totals[2], int(totals[3])
    if not images_seen:
        raise DatasetError("there is no image to validate on: the split is empty")
    top1, top5 = (right.double() / images_seen).tolist()
    seconds = time.perf_counter() - started
    hierarchy = evaluation.result() if evaluation is not None else None
    return Metrics(top1, top5, float(loss_sum) / images_seen, images_seen, seconds, hierarchy, classes)
