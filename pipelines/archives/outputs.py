"""Finds what imgtool itself wrote below a source's folder, as ``--src .`` with the default ``--out`` does."""

from __future__ import annotations

from collections.abc import Collection

MARKS = {
    ".prepare.json": ("", "an unfinished prepared data set"),
    "dataset.json": ("labels.parquet", "a prepared data set"),
    "run.json": ("log.txt", "a training run"),
}
"""A file that marks its folder as an output, a second one that must be beside it, and what the output is."""


def outputs_in(names: Collection[str]) -> dict[str, str]:
    """Returns the outputs among a folder's files: their path with a slash at the end, "" for the folder itself, and
    what each is. Outputs inside another are not named."""
    found: dict[str, str] = {}
    for name in names:
        base = name.rpartition("/")[2]
        if base in MARKS:
            folder = name[: len(name) - len(base)]
            beside, kind = MARKS[base]
            if not beside or folder + beside in names:
                found.setdefault(folder, kind)
    return {
        folder: found[folder]
        for folder in sorted(found)
        if not any(folder != other and folder.startswith(other) for other in found)
    }
