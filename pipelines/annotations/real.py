"""ReaL labels (Beyer et al., "Are we done with ImageNet?", 2020): all classes that each validation image shows."""

from __future__ import annotations

import json
from pathlib import Path

from imgtool.pipelines.storage.text import decode_text
from imgtool.wordnet import orders
from imgtool.wordnet.errors import InputError

MAX_BYTES = 1 << 24
"""Bytes of the largest file that is read. The authors' has 0.4 MB."""


def read_real_labels(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Returns the wnids of each validation image that real.json has labels for, by the image's key
    (ILSVRC2012_val_00000001). Raises InputError as ``read_real_indices`` does."""
    wnids = orders.ilsvrc2012_wnids()
    numbered = enumerate(read_real_indices(path), 1)
    return {f"ILSVRC2012_val_{n:08d}": tuple(wnids[i] for i in indices) for n, indices in numbered if indices}


def read_real_indices(path: str | Path) -> list[list[int]]:
    """Reads the authors' real.json: entry n lists the class indices of validation image n + 1.

    A class index is a position among the 1000 sorted wnids. Raises InputError if the file has another content.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        content = json.loads(decode_text(data)) if len(data) <= MAX_BYTES else None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise InputError(f"{path}: is not JSON; give the real.json of the ReaL labels") from None
    if not isinstance(content, list):
        raise InputError(f"{path}: is not a list of lists of class indices; give the real.json of the ReaL labels")
    classes = len(orders.ilsvrc2012_wnids())
    for number, indices in enumerate(content, 1):
        if not isinstance(indices, list) or not all(type(i) is int and 0 <= i < classes for i in indices):
            raise InputError(
                f"{path}: entry {number} is not a list of class indices 0..{classes - 1}; "
                "give the real.json of the ReaL labels"
            )
    return content
