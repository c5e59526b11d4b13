"""The ILSVRC2012 development kit: its synsets (meta.mat) and the validation ground truth."""

from __future__ import annotations

import io
import tarfile
from typing import NamedTuple

from imgtool.pipelines.storage.folders import Folder, join
from imgtool.pipelines.storage.text import decode_text
from imgtool.wordnet.errors import SourceError

DEVKITS = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12.tar")
META = "data/meta.mat"
GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"


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
    try:
        with tarfile.open(fileobj=io.BytesIO(folder.read(name))) as archive:
            members = {name: m for m in archive for name in (META, GROUND_TRUTH) if m.name.endswith(name)}
            missing = [name for name in (META, GROUND_TRUTH) if name not in members]
            if missing:
                raise SourceError(
                    f"{path}: has no {missing[0]}, so it is not the development kit; download {DEVKITS[0]} again"
                )
            meta, truth = (_read(archive, members[name]) for name in (META, GROUND_TRUTH))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); download it again") from error
    ids = _class_ids(meta, path)
    try:
        ground_truth = [int(line) for line in decode_text(truth).split()]
    except ValueError as error:
        raise SourceError(f"{path}: {GROUND_TRUTH} is damaged ({error}); download it again") from None
    known = set(ids.values())
    for line, identifier in enumerate(ground_truth, 1):
        if identifier not in known:
            raise SourceError(
                f"{path}: {GROUND_TRUTH}, line {line}: no class has ILSVRC2012_ID {identifier}; download it again"
            )
    return Devkit(ids, ground_truth)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "a devkit's files are regular files"
    return file.read()


def _class_ids(meta: bytes, path: str) -> dict[str, int]:
    import scipy.io  # deferred: the import takes a third of a second and is needed only with a development kit

    try:
        synsets = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        # The classes are the leaves. The other 860 rows are their ancestors in the hierarchy.
        return {str(s["WNID"]): int(s["ILSVRC2012_ID"]) for s in synsets.ravel() if int(s["num_children"]) == 0}
    except Exception as error:  # scipy raises any exception on damaged bytes
        raise SourceError(f"{path}: {META} cannot be read ({error}); download it again") from error
