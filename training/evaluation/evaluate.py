"""Computes top-1, top-5 and loss of a model over a loader's batches."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtool.training.evaluation.matching import ClassMatch
from imgtool.training.parallel.distributed import World
from imgtool.wordnet.errors import DatasetError
from imgtool.wordnet.metrics import Metric

Batches = Iterable[tuple[Tensor, Tensor]]  # (images uint8 [N, 3, H, W], labels int64 [N]), both on the device


@dataclass(frozen=True)
class Metrics:
    """The metrics of a whole split."""

    top1: float  # accuracy, 0..1
    top5: float  # accuracy, 0..1; with fewer than five classes, top-(number of classes)
    loss: float  # mean cross-entropy without label smoothing, in nats
    images: int
    seconds: float
    hierarchy: dict[str, Metric] | None = None  # hierarchical metrics (imgtool.wordnet.metrics); None: not measured
    classes: int | None = None  # number of candidate classes: all of the model's, or only those of the data set

    def to_dict(self) -> dict[str, Any]:
        out = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "hierarchy"}
        if self.hierarchy is not None:
            out["hierarchy"] = {name: metric.to_dict() for name, metric in self.hierarchy.items()}
        return out


class EvaluatedBatch(NamedTuple):
    """A batch and the model's output for it. The loader may reuse the memory of the tensors for the next batch."""

    images: Tensor  # uint8 [N, 3, H, W]
    logits: Tensor  # float32 [N, C]
    best: Tensor  # int64 [N, at most 5]: class indices of the highest logits, highest first
    labels: Tensor  # int64 [N]: class indices of the model


Observer: TypeAlias = Callable[[EvaluatedBatch], None]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Batches,
    device: torch.device,
    matched: ClassMatch | None = None,
    class_scores: Callable[[Tensor], Tensor] | None = None,
    observers: Sequence[Observer] = (),
    world: World | None = None,
) -> Metrics:
    """Computes top-1, top-5 and loss over all ``batches``.

    ``model`` maps uint8 images to logits per class (imgtool.training.runtimes); ``class_scores`` converts these to
    logits of other classes, such as the targets of a label map. ``matched`` says which of the model's classes the data
    set's are. Logits of classes that are not candidates are set to minus infinity, so that they count neither in the
    loss nor in probabilities. ``observers`` are called with every batch. With several processes (``world``), each
    passes its own batches, and all get the metrics over the batches of all. Counts are exact integers, accumulated on
    the device and read once at the end. The model is put in eval mode; its previous mode is restored afterwards.

    Raises DatasetError when there is no image.
    """
    started, training = time.perf_counter(), model.training
    model.eval()
    class_map, candidates = (None if part is None else part.to(device) for part in matched or ClassMatch())
    images_seen = classes = 0
    correct = torch.zeros(2, dtype=torch.int64, device=device)  # images: top-1, top-5
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    for images, labels in batches:
        if class_map is not None:
            labels = class_map[labels]
        logits = model(images)
        if class_scores is not None:
            logits = class_scores(logits)
        if candidates is not None:
            logits = torch.full_like(logits, -torch.inf).index_copy(1, candidates, logits[:, candidates])
        classes = logits.shape[1] if candidates is None else len(candidates)
        best = logits.topk(min(5, classes), dim=1).indices
        for observer in observers:
            observer(EvaluatedBatch(images, logits, best, labels))
        hits = best == labels[:, None]
        correct += torch.stack([hits[:, 0].sum(), hits.sum()])
        loss_sum += F.cross_entropy(logits, labels, reduction="sum")
        images_seen += len(labels)
    model.train(training)
    if world is not None:
        totals = world.sum(torch.cat([correct.double(), loss_sum[None], torch.full_like(loss_sum[None], images_seen)]))
        correct, loss_sum, images_seen = totals[:2], totals[2], int(totals[3])
    if not images_seen:
        raise DatasetError("there are no images to validate on: the split is empty")
    top1, top5 = (correct.double() / images_seen).tolist()
    seconds = time.perf_counter() - started
    return Metrics(top1, top5, float(loss_sum) / images_seen, images_seen, seconds, classes=classes)
