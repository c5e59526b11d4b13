"""Published MD5 sums of ImageNet's archives, and the check of downloaded archives against them."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imgtool.pipelines.storage.folders import Folder, open_folder
from imgtool.wordnet.errors import SourceError

# From ImageNet's download page; torchvision.datasets.imagenet and tensorflow_datasets state the same sums.
PUBLISHED = {
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
    "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
    "ILSVRC2012_bbox_train_v2.tar.gz": "9271167e2176350e65cfe4e546f14b17",
    "ILSVRC2012_bbox_val_v3.tgz": "f4cd18b5ea29fe6bbea62ec9c20d80f0",
}
SIZES = {"ILSVRC2012_img_train.tar": 147_897_477_120, "ILSVRC2012_img_val.tar": 6_744_924_160}
"""Size in bytes, where known: an incomplete download is reported without hashing it."""
CHUNK = 1 << 22


def check_md5(path: str | Path, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
    """Compares the MD5 sum of each archive at ``path`` with the published one.

    ``path`` is a folder or an archive, or a URL of one. ``progress(bytes_done, bytes_total)`` is called while hashing.
    Returns the names of the archives that were checked. Raises SourceError that names each archive that differs, or if
    there is no archive whose sum is published.
    """
    parent, _, name = str(path).rstrip("/").rpartition("/")
    folder = open_folder(parent or ".") if name in PUBLISHED else open_folder(path)
    candidates = [name] if name in PUBLISHED else list(PUBLISHED)
    sizes = {name: size for name in candidates if (size := folder.size(name)) is not None}
    if not sizes:
        raise SourceError(
            f"{path}: has no archive whose MD5 sum is published, so there is nothing to check; "
            f"published are those of {', '.join(PUBLISHED)}"
        )
    wrong = [
        f"{name} has {size:,} bytes, the published archive has {SIZES[name]:,}"
        for name, size in sizes.items()
        if size != SIZES.get(name, size)
    ]
    if not wrong:
        done, total, lock = 0, sum(sizes.values()), threading.Lock()

        def count(read: int) -> None:
            nonlocal done
            with lock:
                done += read
                progress(done, total)

        with ThreadPoolExecutor(len(sizes)) as pool:  # hashlib releases the GIL
            found = dict(zip(sizes, pool.map(lambda name: _md5(folder, name, count), sizes), strict=True))
        wrong = [
            f"{name} has MD5 sum {md5}, the published archive has {PUBLISHED[name]}"
            for name, md5 in found.items()
            if md5 != PUBLISHED[name]
        ]
    if wrong:
        raise SourceError(f"{path}: {'; '.join(wrong)}: incomplete or altered; download again")
    return list(sizes)


def _md5(folder: Folder, name: str, count: Callable[[int], None]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with contextlib.closing(folder.open(name)) as file:
        offset = 0
        while data := file.read(offset, CHUNK):
            digest.update(data)
            offset += len(data)
            count(len(data))
    return digest.hexdigest()
