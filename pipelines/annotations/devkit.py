"""The ILSVRC2012 development kit: its synsets (meta.mat) and the validation ground truth."""

from __future__ import annotations

from typing import NamedTuple

from imgtool.pipelines.annotations import matlab, streams
from imgtool.pipelines.storage.folders import Folder, join
from imgtool.pipelines.storage.text import decode_text
from imgtool.wordnet.errors import SourceError

DEVKITS = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12.tar")
META = "data/meta.mat"
GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
MAX_DEVKIT = 1 << 28
"""Bytes of the largest development kit that is read, unpacked or not. ILSVRC2012's have 2.5 MB."""
IDS = range(1, 1 << 20)


class Devkit(NamedTuple):
    """``ids`` has the ILSVRC2012_ID (1-based) of each wnid that is a class; ``ground_truth`` has the ID of validation
    image n at position n - 1."""

    ids: dict[str, int]
    ground_truth: list[int]

    def val_wnids(self) -> list[str]:
        """Returns a list with the wnid of validation image n at position n - 1."""
        wnid_of_id = {identifier: wnid for wnid, identifier in self.ids.items()}
        return [wnid_of_id[identifier] for identifier in self.ground_truth]


def find_devkit(folder: Folder) -> str | None:
    """Returns the name of the development kit in a folder, one of ``DEVKITS``, or None if there is none."""
    return next((name for name in DEVKITS if folder.size(name) is not None), None)


def read_devkit(folder: Folder, name: str) -> Devkit:
    """Reads ILSVRC2012_devkit_t12.tar.gz (or t3) in place. Raises SourceError if it is not a development kit."""
    path = join(folder.url, name)
    found: dict[str, bytes] = {}
    if (folder.size(name) or 0) > MAX_DEVKIT:
        raise SourceError(f"{path}: has more than {MAX_DEVKIT:,} bytes, so it is not the development kit")
    stream = streams.Stream(folder.read(name), path, MAX_DEVKIT)
    for member in streams.members(stream, path):
        for wanted in (META, GROUND_TRUTH):
            if member.name.endswith(wanted):
                found[wanted] = streams.content(stream, member, path)
    stream.check()
    if missing := [wanted for wanted in (META, GROUND_TRUTH) if wanted not in found]:
        raise SourceError(f"{path}: has no {missing[0]}, so it is not the development kit; download {DEVKITS[0]} again")
    ids = _class_ids(found[META], path)
    try:
        ground_truth = [int(line) for line in decode_text(found[GROUND_TRUTH]).split()]
    except ValueError as error:
        raise SourceError(f"{path}: {GROUND_TRUTH} is damaged ({error}); download it again") from None
    known = set(ids.values())
    for line, identifier in enumerate(ground_truth, 1):
        if identifier not in known:
            raise SourceError(
                f"{path}: {GROUND_TRUTH}, line {line}: no class has ILSVRC2012_ID {identifier}; download it again"
            )
    return Devkit(ids, ground_truth)


def _class_ids(meta: bytes, path: str) -> dict[str, int]:
    try:
        rows = matlab.read_structures(meta, "synsets", ("WNID", "ILSVRC2012_ID", "num_children"))
        # The classes are the leaves. The other 860 rows are their ancestors in the hierarchy.
        ids = {str(row["WNID"]): row["ILSVRC2012_ID"] for row in rows if row["num_children"] == 0}
        if not all(wnid and isinstance(number, int | float) and number in IDS for wnid, number in ids.items()):
            raise ValueError("a class has no wnid or no ID")
    except ValueError as error:
        raise SourceError(f"{path}: {META} cannot be read: it {error}; download it again") from None
    return {wnid: int(number) for wnid, number in ids.items()}
