"""Opens a split for validation: its batches, and how the model's classes relate to those of the data set.

Handles hierarchical metrics, ReaL labels, label maps, and data sets that have only some of the model's classes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import torch
from torch import Tensor

from imgtool.pipelines.annotations.real import read_real_indices
from imgtool.pipelines.codec.transform import ValTransform
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.loaders.raw_split import RawSplit, is_raw
from imgtool.training.evaluation.evaluate import Batches, Observer
from imgtool.training.evaluation.matching import ClassMatch, match_classes, resolve_index_folders
from imgtool.training.evaluation.splits import VAL_BATCH, check_splits
from imgtool.training.models.trained import TrainedModel
from imgtool.wordnet import Hierarchy, load, orders
from imgtool.wordnet.errors import CheckpointError, InputError, UnknownSynsetError
from imgtool.wordnet.graph.label_map import LabelMap
from imgtool.wordnet.metrics import Evaluation


@dataclass(frozen=True)
class ValidationSettings:
    """What a model is validated on, and how."""

    data: str | Path  # a prepared or a raw data set
    split: str
    transform: ValTransform
    device: torch.device  # of the batches
    batch: int = VAL_BATCH
    workers: int | None = None  # decoding threads; None: one per CPU core
    backend: str = "auto"  # loader backend, for a prepared data set
    label_map: LabelMap | None = None  # of the data set's classes to the targets to validate on
    all_classes: bool = False  # score all of the model's classes, also those that the data set lacks
    real: str | Path | None = None  # real.json, for ReaL accuracy


@dataclass(frozen=True)
class EvaluationSetup:
    """What `evaluate` needs besides the model and the batches, and the classes that are scored."""

    matched: ClassMatch
    class_scores: Callable[[Tensor], Tensor] | None  # logits of the model's classes → logits of a label map's targets
    hierarchical: Evaluation | None  # collects the hierarchical metrics; None if wnids are not in WordNet
    wnids: Sequence[str]  # of the classes that are scored
    names: Sequence[str]
    present: list[int]  # indices of those classes that the data set has

    @property
    def observer(self) -> Observer | None:
        """An observer for `evaluate` that collects the hierarchical metrics."""
        hierarchical = self.hierarchical
        return None if hierarchical is None else lambda batch: hierarchical.update(batch.best, batch.labels)


def hierarchy_of(wnids: Sequence[str]) -> Hierarchy | None:
    """Returns the hierarchy over a model's classes; None if a class is not in WordNet or they are not sorted."""
    if list(wnids) != sorted(wnids):
        return None
    try:
        return load(list(wnids))
    except UnknownSynsetError:
        return None


def target_scores(wnids: Sequence[str], label_map: LabelMap) -> Callable[[Tensor], Tensor]:
    """Returns a function from logits per class to logits per target: the logarithm of the summed probabilities.

    Raises CheckpointError when the model's classes are not those that the label map maps.
    """
    if list(wnids) != list(label_map.wnids):
        raise CheckpointError(
            f"the label map does not fit the model: it maps {len(label_map.wnids)} classes (the first is "
            f"{label_map.wnids[0]}) to {len(label_map)} targets, and the model's {len(wnids)} classes (the first is "
            f"{wnids[0]}) match neither"
        )

    def scores(logits: Tensor) -> Tensor:
        return label_map.aggregate(logits, "logsumexp")

    return scores


def real_labels(wnids: Sequence[str], keys: Sequence[str], real: str | Path, data: str | Path) -> list[list[int]]:
    """Returns the ReaL labels (Beyer et al. 2020) of samples by their keys: class indices, possibly none.

    ``real`` is the path of their real.json, a list whose n-th entry belongs to validation image n; ``data`` names the
    data set in errors. Raises InputError for a malformed file, for keys without an entry, and for a data set of other
    classes than ILSVRC2012's 1000.
    """
    if list(wnids) != orders.ilsvrc2012_wnids():
        raise InputError(f"ReaL labels need ILSVRC2012's 1000 classes, and {data} has other classes")
    entries = read_real_indices(real)
    labels = []
    for key in keys:
        number = re.fullmatch(r"ILSVRC2012_val_(\d{8})", key)
        if not number or not 0 < int(number[1]) <= len(entries):
            raise InputError(f"{real} has no labels for {key}: ReaL labels exist for ILSVRC2012's validation images")
        labels.append(entries[int(number[1]) - 1])
    return labels


def stored_keys(dataset: Dataset, split: str) -> list[str]:
    """Returns the keys of a split's samples, in stored order."""
    manifest = dataset.manifest(split)
    return list(manifest.filter(pc.is_valid(manifest["position"]))["key"].to_pylist())


def set_up(
    model: TrainedModel, settings: ValidationSettings, data_wnids: Sequence[str], keys: Callable[[], list[str]]
) -> EvaluationSetup:
    """Relates the model's classes to ``data_wnids``: the data set's classes, or with a label map its targets.

    ``keys`` returns the keys of the samples; it is called only for ReaL labels. Hierarchical metrics are computed in
    the hierarchy of all of the model's classes, also when the data set has only some, so that they are comparable.
    Raises CheckpointError when the classes do not fit; InputError for ReaL labels of other classes than ILSVRC2012's.
    """
    class_scores = None
    wnids: Sequence[str]
    names: Sequence[str]
    if settings.label_map is not None and model.wnids != list(data_wnids):
        class_scores = target_scores(model.wnids, settings.label_map)
        matched, hierarchy = ClassMatch(), None
        wnids = names = settings.label_map.names
    else:
        matched = match_classes(data_wnids, model.wnids, settings.data, model.path, settings.all_classes)
        hierarchy, wnids, names = hierarchy_of(model.wnids), tuple(model.wnids), tuple(model.names)
    labels = None
    if settings.real is not None:
        if hierarchy is None:
            raise InputError("ReaL labels need ILSVRC2012's 1000 classes, and the model has other classes")
        labels = real_labels(data_wnids, keys(), settings.real, settings.data)
    if labels is not None and matched.class_map is not None:
        model_index = matched.class_map.tolist()
        labels = [[model_index[i] for i in image_labels] for image_labels in labels]
    hierarchical = None if hierarchy is None else Evaluation(hierarchy, real=labels)
    present = range(len(wnids)) if matched.class_map is None else sorted(set(matched.class_map.tolist()))
    return EvaluationSetup(matched, class_scores, hierarchical, wnids, names, list(present))


@contextmanager
def open_split(model: TrainedModel, settings: ValidationSettings) -> Iterator[tuple[EvaluationSetup, Batches]]:
    """Opens a split of a prepared or raw data set: the setup for `evaluate`, and the batches on the device."""
    if is_raw(settings.data):
        if settings.label_map is not None:
            raise InputError(f"{settings.data} is a raw data set: a label map needs a prepared one")
        with RawSplit(settings.data, settings.split) as raw:
            wnids = resolve_index_folders(raw.wnids, model.wnids, settings.data)
            setup = set_up(model, settings, wnids, lambda: raw.keys)
            yield setup, raw.batches(settings.transform, settings.batch, settings.device, settings.workers)
        return
    dataset = Dataset(settings.data, settings.label_map)
    check_splits(dataset, settings.split)
    setup = set_up(model, settings, dataset.wnids, partial(stored_keys, dataset, settings.split))
    with open_loader(
        dataset,
        settings.split,
        batch_size=settings.batch,
        image_size=settings.transform.imgsz,
        augment=False,
        backend=settings.backend,
        device=str(settings.device),
        num_workers=settings.workers,
    ) as loader:
        yield setup, loader
