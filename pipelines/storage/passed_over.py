"""Files of a source that are not data: which they are, how many, and why. One rule for folders and archives."""

from __future__ import annotations

import collections
import functools

from imgtool.pipelines.storage.text import decode_name

HIDDEN, SYSTEM = "hidden", "system file"
DANGLING, OUTSIDE, LOOP = "link to a missing file", "link out of the archive", "link loop"
SPECIAL, UNREADABLE, REPLACED = "not a regular file", "folder that cannot be read", "replaced by a later file"
AFTER_END, NOT_AN_IMAGE = "further archive after the end of the first", "not an image"
OUTSIDE_SPLITS = "image outside the splits' folders"
ARCHIVE = "archive that is not unpacked"
ARCHIVES = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar")
"""Suffixes of archives, in lower case."""
LITTER = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
    *("icon\r",),  # macOS
    *("__macosx", "@eadir", "@recycle", "#recycle", "lost+found"),  # zips made by macOS, network disks, Linux
}
"""Names, in lower case, of files and folders that operating systems leave among other people's data."""


class PassedOver:
    """Counts the files that are passed over, by reason. ``first`` has the name of the first one per reason.

    ``folders`` are the folders that were met, which are not counted: their files are.
    """

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.first: dict[str, str] = {}
        self.folders: set[str] = set()

    def add(self, reason: str, name: str) -> None:
        self.counts[reason] += 1
        if reason not in self.first:
            self.first[reason] = decode_name(name.encode("utf-8", "surrogateescape"))

    def take_back(self, reason: str, name: str) -> None:
        """Takes back what ``add`` counted, for a file that is used after all."""
        self.counts[reason] -= 1
        if self.first.get(reason) == name:
            self.first[reason] = "…"
        if not self.counts[reason]:
            del self.counts[reason], self.first[reason]

    def without(self, *reasons: str) -> PassedOver:
        """Returns a copy that does not count the files of these reasons."""
        copy = PassedOver()
        copy.counts, copy.first, copy.folders = self.counts.copy(), self.first.copy(), self.folders
        for reason in reasons:
            copy.counts.pop(reason, None)
            copy.first.pop(reason, None)
        return copy

    def update(self, other: PassedOver) -> None:
        """Adds what another one counts."""
        self.counts.update(other.counts)
        self.first = other.first | self.first

    def add_litter(self, name: str) -> bool:
        """Counts the file if its path makes it litter, and returns whether it does."""
        reason = litter(name)
        if reason:
            self.add(reason, name)
        return bool(reason)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def notes(self) -> list[str]:
        """Returns the lines for the user: one that counts the files by reason, or none."""
        if not self.total:
            return []
        parts = [f"{count:,} {reason} ({self.first[reason]})" for reason, count in self.counts.most_common()]
        return [f"passed over: {self.total:,} file{'s' if self.total > 1 else ''}: {', '.join(parts)}"]


def not_an_image(name: str) -> str:
    """Returns the reason for a file that is neither litter nor an image."""
    return ARCHIVE if name.lower().endswith(ARCHIVES) else NOT_AN_IMAGE


def litter(name: str) -> str:
    """Why a file of this path is not data: it or a folder above it is hidden or the operating system's; else ""."""
    folder, _, base = name.rpartition("/")
    if folder and (reason := _litter_folder(folder)):
        return reason
    if base.startswith("."):
        return HIDDEN
    return SYSTEM if base.lower() in LITTER else ""


@functools.lru_cache(1 << 12)
def _litter_folder(folder: str) -> str:
    return next((reason for part in folder.split("/") if (reason := litter(part))), "")
