"""A tar of class tars (n01440764.tar …), as ILSVRC2012's training archive and ImageNet-21k's are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from imgtool.pipelines.archives import tar
from imgtool.pipelines.storage.folders import RandomFile
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

AT_ONCE = 64
"""Class tars of a remote archive read at once: each header is a request, and a request is mostly waiting."""


def scan(
    file: RandomFile, where: str, known: set[str] | None = None, *, parallel: bool = False
) -> Iterator[tuple[str, tar.Member]]:
    """Yields (wnid, image) of every class tar in order, the image named ``n01440764.tar/n01440764_18.JPEG``.

    Raises SourceError for what is no such archive or has a class that is not ``known``, and TruncatedSourceError, after
    everything that is whole, if the archive or a class tar in it ended early.
    """
    truncated: list[str] = []

    def images(outer: tar.Member) -> tuple[list[tar.Member], str]:
        found: list[tar.Member] = []
        if not outer.size:  # ImageNet-21k has classes without images
            return found, ""
        try:
            end = min(outer.offset + outer.size, file.size)
            for inner in tar.scan(file, f"{where}!{outer.name}", outer.offset, end):
                found.append(inner._replace(name=f"{outer.name}/{inner.name}"))
        except TruncatedSourceError as error:
            return found, str(error)
        return found, ""

    def class_tars() -> Iterator[tar.Member]:
        try:
            yield from tar.scan(file, where, cut_off=True)
        except TruncatedSourceError as error:
            truncated.append(str(error))

    def scanned() -> Iterable[tuple[tar.Member, tuple[list[tar.Member], str]]]:
        if not parallel:
            yield from ((outer, images(outer)) for outer in class_tars())
            return
        with ThreadPoolExecutor(AT_ONCE) as pool:
            outers = list(class_tars())
            yield from zip(outers, pool.map(images, outers), strict=True)

    for outer, (found, problem) in scanned():
        wnid = wnid_of(outer, where)
        if known is not None and wnid not in known:
            raise SourceError(f"{where}: {outer.name} is not one of the devkit's {len(known)} classes")
        yield from ((wnid, member) for member in found)
        if problem:
            truncated.append(problem)
    if truncated:
        raise TruncatedSourceError("; ".join(truncated))


def wnid_of(member: tar.Member, where: str) -> str:
    """The class of a class tar, by its name. Raises SourceError if it is no tar."""
    stem, ending = os.path.splitext(os.path.basename(member.name))
    if ending != ".tar":
        raise SourceError(f"{where}: {member.name} is not a class tar (nXXXXXXXX.tar)")
    return stem
