"""A tar of class tars (n01440764.tar …): the format of ILSVRC2012's training archive and of ImageNet-21k."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from imgtool.pipelines.archives import tar
from imgtool.pipelines.storage.folders import RandomAccessFile
from imgtool.pipelines.storage.passed_over import PassedOver
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

CONCURRENT_SCANS = 64
"""Class tars of a remote archive scanned concurrently: each header is one request, which is mostly latency."""


def scan(
    file: RandomAccessFile,
    archive: str,
    known: set[str] | None = None,
    *,
    parallel: bool = False,
    passed_over: PassedOver | None = None,
) -> Iterator[tuple[str, tar.Member]]:
    """Yields (wnid, image) for the images of every class tar, in order; an image is named
    ``n01440764.tar/n01440764_18.JPEG``.

    ``archive`` is the archive's name in messages. ``parallel`` scans class tars in threads. What is no data is added to
    ``passed_over``, as by `tar.scan`. Raises SourceError if this
    is not a tar of class tars or has a class that is not in ``known``. Raises TruncatedSourceError, after every
    complete image, if the archive or a class tar in it is truncated.
    """
    truncated: list[str] = []
    passed_over = PassedOver() if passed_over is None else passed_over

    def images(outer: tar.Member) -> tuple[list[tar.Member], str]:
        found: list[tar.Member] = []
        if not outer.size:  # ImageNet-21k has classes without images
            return found, ""
        try:
            end = min(outer.offset + outer.size, file.size)
            inside = f"{archive}!{outer.name}"
            for inner in tar.scan(file, inside, outer.offset, end, passed_over=passed_over):
                found.append(inner._replace(name=f"{outer.name}/{inner.name}"))
        except TruncatedSourceError as error:
            return found, str(error)
        return found, ""

    def class_tars() -> Iterator[tar.Member]:
        try:
            yield from tar.scan(file, archive, include_truncated=True, passed_over=passed_over)
        except TruncatedSourceError as error:
            truncated.append(str(error))

    def scanned() -> Iterable[tuple[tar.Member, tuple[list[tar.Member], str]]]:
        if not parallel:
            yield from ((outer, images(outer)) for outer in class_tars())
            return
        with ThreadPoolExecutor(CONCURRENT_SCANS) as pool:
            outers = list(class_tars())
            yield from zip(outers, pool.map(images, outers), strict=True)

    for outer, (found, problem) in scanned():
        wnid = wnid_of(outer, archive)
        if known is not None and wnid not in known:
            raise SourceError(
                f"{archive}: {outer.name} is not one of the development kit's {len(known)} classes; "
                "check that both are from the same data set"
            )
        yield from ((wnid, member) for member in found)
        if problem:
            truncated.append(problem)
    if truncated:
        raise TruncatedSourceError("; ".join(truncated))


def wnid_of(member: tar.Member, archive: str) -> str:
    """Returns the wnid in a class tar's name. Raises SourceError if the member is not a tar."""
    stem, suffix = os.path.splitext(os.path.basename(member.name))
    if suffix != ".tar":
        raise SourceError(f"{archive}: {member.name} is not a class tar (nXXXXXXXX.tar); the archive is not ImageNet's")
    return stem
