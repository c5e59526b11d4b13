"""What `Classifier.val` measures besides top-1, and in which classes: hierarchical metrics, ReaL labels, label maps."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.compute as pc
from torch import Tensor

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.sources.real import read_indices
from imgtool.wordnet import Hierarchy, load, orders
from imgtool.wordnet.errors import CheckpointError, InputError, UnknownSynsetError
from imgtool.wordnet.relabel import LabelMap


def hierarchy_of(wnids: Sequence[str]) -> Hierarchy | None:
    """The hierarchy over a model's classes; None where they have no place in WordNet, or are not in sorted order."""
    if list(wnids) != sorted(wnids):
        return None
    try:
        return load(list(wnids))
    except UnknownSynsetError:
        return None


def gathered_scores(
    class_scores: Callable[[Tensor], Tensor], wnids: Sequence[str], labelmap: LabelMap
) -> Callable[[Tensor], Tensor]:
    """A model's outputs to logits of the label map's targets: the logarithm of the summed probabilities.

    Raises CheckpointError when the model's classes are not those that the label map gathers.
    """
    if list(wnids) != list(labelmap.wnids):
        raise CheckpointError(
            f"the label map gathers {len(labelmap.wnids)} classes, {labelmap.wnids[0]} first, into {len(labelmap)}; "
            f"the model's {len(wnids)} classes, {wnids[0]} first, are neither these nor those"
        )

    def scores(outputs: Tensor) -> Tensor:
        return labelmap.aggregate(class_scores(outputs), "logsumexp")

    return scores


def real_labels(dataset: Dataset, split: str, path: str | Path) -> list[list[int]]:
    """The ReaL labels (Beyer et al. 2020) of a split's samples, in stored order: class indices, perhaps none.

    ``path`` is their real.json: a list whose n-th entry is validation picture n's. Raises InputError for a file of
    another kind, for pictures it does not number, and for a data set of other classes than ILSVRC2012's 1000.
    """
    if dataset.wnids != orders.ilsvrc2012_wnids():
        raise InputError(f"ReaL labels are of ILSVRC2012's 1000 classes, and {dataset.path} has others")
    real = read_indices(path)
    manifest = dataset.manifest(split)
    keys = manifest.filter(pc.is_valid(manifest["position"]))["key"].to_pylist()
    numbers = [re.fullmatch(r"ILSVRC2012_val_(\d{8})", key) for key in keys]
    bad = [key for key, number in zip(keys, numbers, strict=True) if not number or not 0 < int(number[1]) <= len(real)]
    if bad:
        raise InputError(f"{path}: has no labels for {bad[0]}: ReaL labels are of ILSVRC2012's validation pictures")
    return [real[int(number[1]) - 1] for number in numbers if number]
