"""Which of a model's classes the classes of a data set are."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from imgtool.wordnet import orders
from imgtool.wordnet.errors import CheckpointError


class Matched(NamedTuple):
    """Which of the model's classes a data set's are. Both None: the same classes in the same order."""

    class_map: Tensor | None = None  # int64 [data set's classes]: the model's class index of each
    candidates: Tensor | None = None  # int64 [K], ascending: the model's classes to choose from; None for all of them


def match_classes(
    data: Sequence[str], model: Sequence[str], where: str | Path, checkpoint: str | Path | None, all_classes: bool
) -> Matched:
    """Matches classes by wnid; what the data set lacks of the model's is masked unless ``all_classes``.

    Raises CheckpointError when the data set has a class that the model does not know.
    """
    if list(data) == list(model):
        return Matched()
    position = {wnid: index for index, wnid in enumerate(model)}
    lacking = sorted(set(data) - set(model))
    if lacking:
        extra = sorted(set(model) - set(data))
        differences = [
            f"{len(wnids)} {text}, {wnids[0]} first"
            for wnids, text in ((lacking, "only in the data set"), (extra, "only in the checkpoint"))
            if wnids
        ]
        raise CheckpointError(f"the classes of {checkpoint} are not those of {where}: {'; '.join(differences)}")
    class_map = torch.tensor([position[wnid] for wnid in data])
    masked = not all_classes and len(set(data)) < len(model)
    return Matched(class_map, class_map.unique() if masked else None)


def named_by_index(folders: Sequence[str], model: Sequence[str], where: str | Path) -> list[str]:
    """The wnids of class folders that are called by class index, as ImageNet-V2's are (0 … 999); of any others, their
    names as they are.

    The numbers are of ILSVRC2012's 1000 classes if the model knows all of these, else of the model's own; both in
    sorted order. Raises CheckpointError for a number beyond these classes.
    """
    if set(folders) <= set(model) or not all(re.fullmatch(r"[0-9]{1,6}", name) for name in folders):
        return list(folders)
    published = orders.ilsvrc2012_wnids()
    numbered = published if set(published) <= set(model) else sorted(model)
    beyond = [name for name in folders if int(name) >= len(numbered)]
    if beyond:
        raise CheckpointError(
            f"{where}: its folder {beyond[0]} is no class index of the model's {len(numbered)} classes"
        )
    return [numbered[int(name)] for name in folders]
