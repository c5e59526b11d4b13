"""What `Classifier.val` measures besides top-1, and among which classes: hierarchical metrics, ReaL labels, label maps,
data sets of some of the model's classes."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc
import torch
from torch import Tensor

from imgtool.pipelines.annotations.real import read_real_indices
from imgtool.pipelines.codec.transform import ValTransform
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.loaders.raw_split import RawSplit, is_raw
from imgtool.training.evaluation.evaluate import Batches, Observer
from imgtool.training.evaluation.matching import Matched, match_classes, named_by_index
from imgtool.training.evaluation.splits import VAL_BATCH, check_splits
from imgtool.training.models.trained import TrainedModel
from imgtool.wordnet import Hierarchy, load, orders
from imgtool.wordnet.errors import CheckpointError, InputError, UnknownSynsetError
from imgtool.wordnet.graph.label_map import LabelMap
from imgtool.wordnet.metrics import Evaluation


def hierarchy_of(wnids: Sequence[str]) -> Hierarchy | None:
    """The hierarchy over a model's classes; None where they have no place in WordNet, or are not in sorted order."""
    if list(wnids) != sorted(wnids):
        return None
    try:
        return load(list(wnids))
    except UnknownSynsetError:
        return None


def gathered_scores(wnids: Sequence[str], labelmap: LabelMap) -> Callable[[Tensor], Tensor]:
    """A model's logits per class to logits of the label map's targets: the logarithm of the summed probabilities.

    Raises CheckpointError when the model's classes are not those that the label map gathers.
    """
    if list(wnids) != list(labelmap.wnids):
        raise CheckpointError(
            f"the label map gathers {len(labelmap.wnids)} classes, {labelmap.wnids[0]} first, into {len(labelmap)}; "
            f"the model's {len(wnids)} classes, {wnids[0]} first, are neither these nor those"
        )

    def scores(logits: Tensor) -> Tensor:
        return labelmap.aggregate(logits, "logsumexp")

    return scores


def real_labels(wnids: Sequence[str], keys: Sequence[str], path: str | Path, where: str | Path) -> list[list[int]]:
    """The ReaL labels (Beyer et al. 2020) of samples by their keys: class indices, perhaps none.

    ``path`` is their real.json: a list whose n-th entry is validation image n's. Raises InputError for a file of
    another kind, for images it does not number, and for a data set of other classes than ILSVRC2012's 1000.
    """
    if list(wnids) != orders.ilsvrc2012_wnids():
        raise InputError(f"ReaL labels are of ILSVRC2012's 1000 classes, and {where} has others")
    real = read_real_indices(path)
    numbers = [re.fullmatch(r"ILSVRC2012_val_(\d{8})", key) for key in keys]
    bad = [key for key, number in zip(keys, numbers, strict=True) if not number or not 0 < int(number[1]) <= len(real)]
    if bad:
        raise InputError(f"{path}: has no labels for {bad[0]}: ReaL labels are of ILSVRC2012's validation images")
    return [real[int(number[1]) - 1] for number in numbers if number]


def stored_keys(dataset: Dataset, split: str) -> list[str]:
    """The keys of a split's samples, in stored order."""
    manifest = dataset.manifest(split)
    return list(manifest.filter(pc.is_valid(manifest["position"]))["key"].to_pylist())


class Plan(NamedTuple):
    """How a model is measured on a data set: what `evaluate` is given besides model and batches. ``wnids`` and
    ``names`` are of the classes that ``class_scores`` gives, ``shown`` the indices of those that the data set has."""

    matched: Matched
    class_scores: Callable[[Tensor], Tensor] | None
    evaluation: Evaluation | None
    wnids: Sequence[str]
    names: Sequence[str]
    shown: list[int]

    @property
    def observer(self) -> Observer | None:
        """Of `evaluate`, for the hierarchical metrics."""
        evaluation = self.evaluation
        return None if evaluation is None else lambda batch: evaluation.update(batch.best, batch.labels)


def plan(
    model: TrainedModel,
    data: Sequence[str],
    where: str | Path,
    gather: LabelMap | None,
    all_classes: bool,
    real: str | Path | None,
    keys: Callable[[], list[str]],
) -> Plan:
    """The plan for a model on a data set of the classes ``data`` (with ``gather``: that map's targets).

    ``real`` is the path of the ReaL labels, ``keys`` gives the samples' names that it is asked for. Hierarchical
    metrics are those of the model's classes whether or not the data set has all of them, so that they can be compared.
    Raises CheckpointError when the classes do not fit; InputError for ReaL labels of other classes than ILSVRC2012's.
    """
    class_scores = None
    if gather is not None and model.wnids != list(data):
        class_scores = gathered_scores(model.wnids, gather)
        matched, hierarchy, wnids, names = Matched(), None, gather.names, gather.names
    else:
        matched = match_classes(data, model.wnids, where, model.path, all_classes)
        hierarchy, wnids, names = hierarchy_of(model.wnids), tuple(model.wnids), tuple(model.names)
    if real is not None and hierarchy is None:
        raise InputError("ReaL labels are of ILSVRC2012's 1000 classes, and here are others")
    labels = None if real is None else real_labels(data, keys(), real, where)
    if labels is not None and matched.class_map is not None:
        index = matched.class_map.tolist()
        labels = [[index[i] for i in of_image] for of_image in labels]
    evaluation = None if hierarchy is None else Evaluation(hierarchy, real=labels)
    shown = range(len(wnids)) if matched.class_map is None else sorted(set(matched.class_map.tolist()))
    return Plan(matched, class_scores, evaluation, wnids, names, list(shown))


@contextmanager
def open_split(
    model: TrainedModel,
    where: str | Path,
    split: str,
    gather: LabelMap | None,
    transform: ValTransform,
    batch: int | None,
    place: torch.device,
    workers: int | None,
    backend: str,
    all_classes: bool,
    real: str | Path | None,
) -> Iterator[tuple[Plan, Batches]]:
    """The plan for a split of a prepared or raw data set, and its batches on the device ``place``."""
    if is_raw(where):
        if gather is not None:
            raise InputError(f"{where} is a raw data set: a label map gathers a prepared one's classes")
        with RawSplit(where, split) as raw:
            wnids = named_by_index(raw.wnids, model.wnids, where)
            measure = plan(model, wnids, where, None, all_classes, real, lambda: raw.keys)
            yield measure, raw.batches(transform, batch or VAL_BATCH, place, workers)
        return
    dataset = Dataset(where, gather)
    check_splits(dataset, split)
    keys = partial(stored_keys, dataset, split)
    measure = plan(model, dataset.wnids, dataset.path, gather, all_classes, real, keys)
    with open_loader(
        dataset,
        split,
        batch_size=batch or VAL_BATCH,
        image_size=transform.imgsz,
        augment=False,
        backend=backend,
        device=str(place),
        num_workers=workers,
    ) as loader:
        yield measure, loader
