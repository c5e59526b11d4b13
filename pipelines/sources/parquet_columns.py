"""Reads what a parquet file of images states: which columns hold images and labels, and each row's label and path."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgtool.pipelines.archives import parquet
from imgtool.pipelines.archives.parquet import Damaged
from imgtool.pipelines.records import Locator
from imgtool.pipelines.sources.layout import label_text
from imgtool.pipelines.storage.folders import RandomAccessFile
from imgtool.pipelines.storage.text import without_surrogates

IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes")
LABELS = ("label", "labels", "fine_label", "cls", "class", "target", "category", "wnid", "synset", "class_name")
UNLABELLED = -1
PATHS_ONLY = (
    "holds the paths of images, not their bytes; write the bytes into it, or give the folder of the images with a "
    "CSV table of paths and labels"
)


class ParquetFile(NamedTuple):
    """What is read of a file when the source is opened: its row groups, and each row's label and path.

    A label is ``UNLABELLED`` where it is null. Where the column is text, ``texts`` has the distinct values, and a label
    is a position in it. ``column`` is the path of the images' column in the schema, ``ignored`` are other columns that
    could be the images'.
    """

    name: str
    column: str
    row_groups: list[parquet.RowGroup]
    labels: npt.NDArray[np.int64]
    paths: pa.ChunkedArray | None
    class_names: list[str] | None
    texts: list[str] | None
    ignored: list[str]

    def locators(self) -> Iterator[Locator]:
        """Yields the locator of each row."""
        row_of_file = itertools.count()
        for number, group in enumerate(self.row_groups):
            for row in range(group.rows):
                yield parquet.locator(self.name, self.column, number, group.offset, row, next(row_of_file))


def read_columns(file: RandomAccessFile, name: str, unlabelled: bool) -> ParquetFile:
    """Reads labels and paths. ``unlabelled``: the file may lack a column of labels.

    Raises Damaged, and nothing else but errors of the system, for a file that cannot be used.
    """
    with _opened(file) as opened:
        return _contents(opened, name, file.size, unlabelled)


def read_texts(file: RandomAccessFile, column: str) -> list[str]:
    """Returns the texts in a column of a small file. Raises errors as `read_columns` does."""
    with _opened(file) as opened:
        found = opened.read([column], use_threads=False)[column].cast(pa.large_string())
        found.validate(full=True)
        if found.null_count:
            raise Damaged(f"its column {column} has rows without a text")
        texts: list[str] = found.to_pylist()
        return texts


@contextlib.contextmanager
def _opened(file: RandomAccessFile) -> Iterator[pq.ParquetFile]:
    """Opens a file in a child process. Any exception on damaged bytes, of which pyarrow has many, is Damaged."""
    try:
        with parquet.open_parquet(file) as opened:
            yield opened
    except Damaged:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        cause = " ".join(str(error).split()) or type(error).__name__
        raise Damaged(f"is damaged or not a parquet file; download it again ({cause})") from None


def _contents(opened: pq.ParquetFile, name: str, size: int, unlabelled: bool) -> ParquetFile:
    metadata, schema = opened.metadata, opened.schema_arrow
    if metadata.num_rows > size:
        raise Damaged("is damaged: its footer states more rows than the file has bytes; download it again")
    image, bytes_path, name_path, ignored = _image_column(schema)
    label = next((column for column in LABELS if column in schema.names), None)
    if not (image and (label is not None or unlabelled)):
        raise Damaged(_unusable(schema))
    if label and not _is_label(schema.field(label).type):
        raise Damaged(
            f"its column {label} is of the type {schema.field(label).type}; write one label per row into it, an "
            "integer or a text"
        )
    row_groups = parquet.row_groups(opened, bytes_path, size)
    if _without_bytes(metadata, bytes_path):
        raise Damaged(f"its column {image} {PATHS_ONLY}")
    columns = [column for column in (label, name_path) if column]
    batches = list(opened.iter_batches(1 << 16, columns=columns, use_threads=False)) if columns else []
    texts = None
    if label is None:
        labels = np.full(metadata.num_rows, UNLABELLED)
    elif _is_text(schema.field(label).type):
        labels, texts = _coded([batch[label] for batch in batches])
    else:
        labels = np.concatenate([*(_numbers(batch[label], label) for batch in batches), np.zeros(0, np.int64)])
    paths = None
    if name_path:
        paths = pa.chunked_array(
            [batch[image].field("path").cast(pa.large_string()) for batch in batches], pa.large_string()
        )
        paths.validate(full=True)  # raises ArrowInvalid if a path is not UTF-8
    names = _class_names(schema, label) if label and texts is None else None
    file = ParquetFile(name, bytes_path, row_groups, labels, paths, names, texts, ignored)
    if not len(file.labels) == sum(group.rows for group in row_groups) == metadata.num_rows:
        raise Damaged("is damaged: its columns have different numbers of rows; download it again")
    return file


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_label(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    return _is_text(kind) or any(is_(kind) for is_ in (types.is_integer, types.is_floating, types.is_null))


def _numbers(column: pa.Array, name: str) -> npt.NDArray[np.int64]:
    """Returns whole numbers, ``UNLABELLED`` for null, NaN (as pandas writes null) and negative ones.

    Raises Damaged, which names the column, for another number.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    try:
        numbers = column.cast(pa.int64())
    except pa.ArrowInvalid:
        limit = 1 << 63
        wrong = (v for v in column.to_pylist() if v is not None and (not -limit <= v < limit or v != int(v)))
        raise Damaged(
            f"its column {name} has the label {next(wrong, '?')}; labels are whole numbers or texts"
        ) from None
    return np.maximum(np.asarray(numbers.fill_null(UNLABELLED)), UNLABELLED)


def _coded(columns: list[pa.Array]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Returns the position of each text among the distinct ones, and these; "" where a text is no label."""
    column = pa.chunked_array([one.cast(pa.large_string()) for one in columns], pa.large_string())
    column.validate(full=True)
    coded = column.combine_chunks().dictionary_encode()
    coded = coded.chunk(0) if isinstance(coded, pa.ChunkedArray) else coded
    return np.asarray(coded.indices.cast(pa.int64()).fill_null(-1)), [
        label_text(t) for t in coded.dictionary.to_pylist()
    ]


def _unusable(schema: pa.Schema) -> str:
    """Returns why a schema has no column of images or none of labels."""
    images = [field.name for field in schema if _is_image_struct(field.type)]
    if len(images) > 1 and not set(images) & set(IMAGES):
        return f"has several columns of images, {' and '.join(images)}; rename one of them to {IMAGES[0]}"
    has_image = bool(_image_column(schema)[0])
    for field in schema if not has_image else ():
        is_struct = pa.types.is_struct(field.type) and _field_type(field.type, "path") is not None
        if is_struct or (field.name in (*IMAGES, "path", "file_name", "image_path") and _is_text(field.type)):
            return f"its column {field.name} ({field.type}) {PATHS_ONLY}"
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    return (
        f"has no column of images ({', '.join(IMAGES)}) or none of labels, integers or texts ({', '.join(LABELS)}); "
        f"rename its columns, which are {columns}"
    )


def _without_bytes(metadata: pq.FileMetaData, column: str) -> bool:
    """Whether the footer says that all values of the column are null."""
    nulls = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        chunk = next((c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column), None)
        if chunk is None:
            raise Damaged(f"is damaged: a row group lacks the column {column}; download it again")
        nulls += (chunk.statistics.null_count or 0) if chunk.is_stats_set else 0
    return 0 < metadata.num_rows == nulls


def _is_image_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and _is_bytes(_field_type(kind, "bytes"))


def _image_column(schema: pa.Schema) -> tuple[str, str, str, list[str]]:
    """Returns the image column's name, the parquet paths of the bytes and of the file names, "" where absent, and the
    names of other columns that could be the images'."""
    structs = [f.name for f in schema if _is_image_struct(f.type)]
    plain = [f.name for f in schema if _is_bytes(f.type) and f.name in IMAGES]
    candidates = [*structs, *plain]
    for found in (structs, plain):
        named = [name for name in IMAGES if name in found] or (found if found is structs and len(found) == 1 else [])
        if not named:
            continue
        others = [name for name in candidates if name != named[0]]
        if found is plain:
            return named[0], named[0], "", others
        path = _field_type(schema.field(named[0]).type, "path")
        is_text = path is not None and (pa.types.is_string(path) or pa.types.is_large_string(path))
        return named[0], f"{named[0]}.bytes", f"{named[0]}.path" if is_text else "", others
    return "", "", "", []


def _field_type(kind: pa.StructType, name: str) -> pa.DataType | None:
    index = kind.get_field_index(name)
    return kind.field(index).type if index >= 0 else None


def _is_bytes(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Returns the class names that the library ``datasets`` writes into the metadata for a ClassLabel, by label."""
    try:
        info: Any = json.loads((schema.metadata or {})[b"huggingface"])
        names = info["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    is_list = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return [without_surrogates(name) for name in names] if is_list else None
