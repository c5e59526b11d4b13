"""What the tests of hostile parquet files run in a child process, which imports it from this folder."""

from __future__ import annotations

import os
import signal

from imgtool.pipelines.archives import parquet
from imgtool.pipelines.sources.parquet_columns import read_columns
from imgtool.pipelines.storage.folders import RandomAccessFile
from imgtool.wordnet.errors import ImageError


def read(file: RandomAccessFile) -> int:
    """Reads labels and all images, without a further child process."""
    columns = read_columns(file, "x.parquet", False)
    read = list(parquet.read(file, list(columns.locators()), parquet.footer(file)))
    return sum(not isinstance(data, ImageError) for data in read)


def crash(file: RandomAccessFile) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def fill_memory(file: RandomAccessFile) -> int:
    return len(bytes(8 << 30))


def crash_instead(file: RandomAccessFile, name: str, unlabelled: bool) -> None:
    os.abort()
