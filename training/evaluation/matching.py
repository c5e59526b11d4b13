"""Matches the classes of a data set to those of a model."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from imgtool.wordnet import orders
from imgtool.wordnet.errors import CheckpointError


class ClassMatch(NamedTuple):
    """Which of the model's classes the data set's classes are. Both None: the same classes in the same order."""

    class_map: Tensor | None = None  # int64 [data set's classes]: the model's class index of each
    candidates: Tensor | None = None  # int64 [K], ascending: class indices that may be predicted; None: all


def match_classes(
    data_wnids: Sequence[str],
    model_wnids: Sequence[str],
    data: str | Path,
    checkpoint: str | Path | None,
    all_classes: bool,
) -> ClassMatch:
    """Matches classes by wnid. Only classes that the data set has are candidates, unless ``all_classes``.

    ``data`` and ``checkpoint`` are the paths that an error names. Raises CheckpointError when the data set has a
    class that the model lacks.
    """
    if list(data_wnids) == list(model_wnids):
        return ClassMatch()
    index_of = {wnid: index for index, wnid in enumerate(model_wnids)}
    only_data = sorted(set(data_wnids) - set(model_wnids))
    if only_data:
        only_model = sorted(set(model_wnids) - set(data_wnids))
        differences = [
            f"{len(wnids)} only in {owner} (the first is {wnids[0]})"
            for wnids, owner in ((only_data, "the data set"), (only_model, "the checkpoint"))
            if wnids
        ]
        raise CheckpointError(f"the classes of {checkpoint} do not match those of {data}: {', '.join(differences)}")
    class_map = torch.tensor([index_of[wnid] for wnid in data_wnids])
    masked = not all_classes and len(set(data_wnids)) < len(model_wnids)
    return ClassMatch(class_map, class_map.unique() if masked else None)


def resolve_index_folders(folders: Sequence[str], model_wnids: Sequence[str], data: str | Path) -> list[str]:
    """Returns the wnids of class folders that are named by class index (0 … 999, as in ImageNet-V2).

    Folders with other names are returned unchanged. The indices are those of ILSVRC2012's 1000 classes if the model
    has all of these, otherwise those of the model's classes; both in sorted order. Raises CheckpointError for an index
    beyond these classes; ``data`` is the path that it names.
    """
    if set(folders) <= set(model_wnids) or not all(re.fullmatch(r"[0-9]{1,6}", name) for name in folders):
        return list(folders)
    published = orders.ilsvrc2012_wnids()
    classes = published if set(published) <= set(model_wnids) else sorted(model_wnids)
    beyond = [name for name in folders if int(name) >= len(classes)]
    if beyond:
        raise CheckpointError(f"{data}: folder {beyond[0]} is not a class index: there are {len(classes)} classes")
    return [classes[int(name)] for name in folders]
