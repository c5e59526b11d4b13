"""Top-1, top-5 and loss of a model over a loader's batches."""

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


class Evaluated(NamedTuple):
    """A batch and what the model makes of it. The tensors' memory may be reused for the next batch."""

    images: Tensor  # uint8 [N, 3, H, W]
    logits: Tensor  # float32 [N, C]
    best: Tensor  # int64 [N, up to 5]: class indices, best first
    labels: Tensor  # int64 [N]: class indices of the model


Observer: TypeAlias = Callable[[Evaluated], None]


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
    """Top-1, top-5 and loss over all ``batches``.

    ``model`` is a runner (imgtool.training.runtimes): uint8 images → logits per class; ``class_scores`` turns these
    into logits of other classes, a label map's targets. ``matched`` says which of the model's classes the data set's
    are. Logits of classes that are not candidates count for nothing, in the loss and in probabilities too.
    ``observers`` are called with every batch. Counts are exact integers, kept on the device and read once at the end.
    Leaves the model in the mode it was in. With several processes (``world``) each gives its own batches, and all get
    the metrics of all. Raises DatasetError when there is no image.
    """
    started, training = time.perf_counter(), model.training
    model.eval()
    class_map, candidates = (None if part is None else part.to(device) for part in matched or ClassMatch())
    images_seen = classes = 0
    right = torch.zeros(2, dtype=torch.int64, device=device)  # at the first place, among the first five
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
            observer(Evaluated(images, logits, best, labels))
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
    return Metrics(top1, top5, float(loss_sum) / images_seen, images_seen, seconds, classes=classes)
