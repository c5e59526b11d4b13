"""Hashes of whole files."""

from __future__ import annotations

from pathlib import Path

import xxhash


def file_xxh3(path: str | Path) -> str:
    """Returns the xxh3-64 hash of a file's bytes, in hex."""
    digest = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
