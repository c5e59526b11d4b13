"""Links in archives, resolved as unpacking would: to files in the same archive, and never out of it."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from typing import TypeVar

from imgtool.pipelines.storage.passed_over import DANGLING, LOOP, OUTSIDE, REPLACED, PassedOver
from imgtool.wordnet.errors import SourceError

T = TypeVar("T")
MAX_HOPS = 40
"""Links on the way to one file, as many as Linux follows."""
MAX_FILES = 1 << 20
"""Files that links may add, unless the archive has more itself."""


def normal(name: str) -> str:
    """Returns a member's name without "./", "//" and a slash at its end."""
    if name.startswith("./") or name.endswith("/") or "//" in name or "/./" in name or name.endswith("/."):
        return "/".join(part for part in name.split("/") if part not in ("", "."))
    return "" if name == "." else name


def is_outside(name: str) -> bool:
    """Whether a member's name leads out of the archive's folder."""
    return name.startswith("/") or (".." in name and ".." in name.split("/"))


class Links:
    """The links of an archive: ``add`` each one, then ``resolve`` them. ``passed_over`` counts those without a file."""

    def __init__(self, passed_over: PassedOver) -> None:
        self.passed_over = passed_over
        self._targets: dict[str, str] = {}
        self._left = 0

    def add(self, name: str, target: str, *, hard: bool = False) -> None:
        """Adds a link. A hard link's target is relative to the archive, a symbolic link's to the link's folder."""
        self.drop(name)
        folder = "" if hard else name.rpartition("/")[0]
        self._targets[name] = target if target.startswith("/") else f"{folder}/{target}".lstrip("/")

    def drop(self, name: str) -> None:
        """Forgets the link of this name, which a later member replaces."""
        if self._targets and self._targets.pop(name, None) is not None:
            self.passed_over.add(REPLACED, name)

    def resolve(self, files: Mapping[str, T]) -> Iterator[tuple[str, T]]:
        """Yields (name, file) for each file that a link adds, ``files`` being the archive's by name.

        A link to a folder adds every file below it. A link that dangles, leads out of the archive or leads to a folder
        above itself is added to ``passed_over``. Raises SourceError if links multiply the archive's files.
        """
        if not self._targets:
            return
        names = sorted([*files, *self._targets])
        self._left = max(MAX_FILES, 2 * len(names))
        for link in self._targets:
            yield from self._expand(link, link, frozenset(_folders_above(link)), files, names)

    def _expand(
        self,
        link: str,
        name: str,
        above: frozenset[str],
        files: Mapping[str, T],
        names: list[str],
        depth: int = 0,
    ) -> Iterator[tuple[str, T]]:
        """Yields what ``link`` adds under the name ``name``. It must not lead to one of the folders ``above`` it."""
        self._left -= 1
        if self._left < 0:
            raise SourceError("its links to folders multiply its files beyond all measure; do not use this archive")
        reason, real = self._follow(link)
        if not reason and real in files:
            yield name, files[real]
            return
        below = [] if reason else _below(names, real)
        if not reason and (real in above or depth == MAX_HOPS):
            reason = LOOP
        if reason or not below:
            self.passed_over.add(reason or DANGLING, name)
            return
        for inner in below:
            renamed = name + inner[len(real) :]
            if inner in files:
                self._left -= 1
                yield renamed, files[inner]
            else:
                folders = above | {real, *(folder for folder in _folders_above(inner) if folder.startswith(f"{real}/"))}
                yield from self._expand(inner, renamed, folders, files, names, depth + 1)

    def _follow(self, name: str) -> tuple[str, str]:
        """Returns ("", the path that a link leads to), or (the reason why it leads nowhere, "")."""
        done: list[str] = []
        todo, hops = name.split("/")[::-1], 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    return OUTSIDE, ""
                done.pop()
                continue
            done.append(part)
            target = self._targets.get("/".join(done))
            if target is not None:
                hops += 1
                if hops > MAX_HOPS:
                    return LOOP, ""
                if target.startswith("/"):
                    return OUTSIDE, ""
                todo += target.split("/")[::-1]
                done.clear()
        return "", "/".join(done)


def _folders_above(name: str) -> Iterator[str]:
    while name:
        name = name.rpartition("/")[0]
        yield name


def _below(names: list[str], folder: str) -> list[str]:
    """The sorted names that are below a folder."""
    if not folder:
        return names
    return names[bisect.bisect_left(names, f"{folder}/") : bisect.bisect_left(names, f"{folder}0")]  # "0" follows "/"
