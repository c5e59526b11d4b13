"""ReaL labels (Beyer et al., "Are we done with ImageNet?", 2020): all the classes that a validation image shows."""

from __future__ import annotations

import json
from pathlib import Path

from imgtool.wordnet import orders
from imgtool.wordnet.errors import InputError


def read_real(path: str | Path) -> dict[str, tuple[str, ...]]:
    """The wnids of each validation image by its key (ILSVRC2012_val_00000001), as far as real.json has any."""
    wnids = orders.ilsvrc2012_wnids()
    numbered = enumerate(read_indices(path), 1)
    return {f"ILSVRC2012_val_{n:08d}": tuple(wnids[i] for i in indices) for n, indices in numbered if indices}


def read_indices(path: str | Path) -> list[list[int]]:
    """The authors' real.json: entry n lists the class indices, in sorted-wnid order, of validation image n + 1.

    Raises InputError for another kind of file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError:
        raise InputError(f"{path}: is not JSON; expected ReaL's real.json") from None
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a list of lists of class indices, as ReaL's real.json is")
    classes = len(orders.ilsvrc2012_wnids())
    for number, indices in enumerate(content, 1):
        if not isinstance(indices, list) or not all(type(i) is int and 0 <= i < classes for i in indices):
            raise InputError(f"{path}: entry {number} is not a list of class indices 0..{classes - 1}")
    return content
