"""Raw data sets ("sources"), one module per layout. `open_source` recognises the layout and returns a `Source`.

A source is a raw data set as it is downloaded: archives, folders, label files. It lists its images as `Record`s and
reads none of them. A record has the image's key, its classes, its bounding boxes where the source states them, and a
`Locator`: file, offset and size of the image's bytes. `LocatorReader` (archives/reader.py) reads the bytes later, in
any order, from any process or machine, and the codec decodes them.

To add a layout, write one module with one class that has

- ``recognise``, a class method that decides from file names alone (at most the first header of an archive) whether a
  path has this layout;
- the attributes and the method ``records`` of the protocol `Source` below;

and call both in `open_source`. What a source needs for this:

- `FileTree` (archives/file_tree.py) names the files of a folder, a tar or a zip in the same way and has their locators.
  A layout that can be any of the three should read its files through it.
- `open_folder` (storage/folders.py) opens files, local ones or those at a URL. Use it instead of ``open``.
- ``tar.scan`` and ``class_tars.scan`` (archives/) list archives that a `FileTree` cannot show, such as tars of tars.
- The modules in annotations/ parse label files and bounding boxes.
- layout.py has what layouts have in common: the images among the files, the names of splits, the classes of labels.

Errors: raise SourceError where the source contradicts itself or is damaged. Name the file (and line) and what to do. If
an archive is truncated, yield every complete record first, then raise TruncatedSourceError. Do not skip in silence what
looks like data: yield a record whose locator is ``unreadable(CAUSE)``, which gets a row in the manifest, or say in
``notes`` how much is left out, and why.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from imgtool.pipelines.records import Record
from imgtool.pipelines.storage.folders import is_url, open_folder
from imgtool.pipelines.storage.passed_over import ARCHIVES, PassedOver
from imgtool.wordnet.errors import SourceError

if TYPE_CHECKING:
    from imgtool.pipelines.archives.file_tree import FileTree


class Source(Protocol):
    """A raw data set whose images are listed split by split.

    A source may also have ``notes``, a list of lines for the user that is filled while records are listed.
    """

    layout: ClassVar[str]
    """The layout's name, e.g. "tiny-imagenet"; part of dataset.json."""
    root: str
    """The folder (path or URL) that the locators' ``file`` is relative to."""
    wnids: list[str]
    """The classes in sorted order: a class index is a position in this list. Usually wnids, else folder names."""
    ilsvrc2012_ids: dict[str, int]
    """The development kit's 1-based ILSVRC2012_ID by wnid; empty where the source does not state it."""
    splits: tuple[str, ...]
    """The splits that are present, in the order train, val, test."""
    passed_over: PassedOver
    """What is no data; filled while records are listed."""

    def records(self, split: str) -> Iterator[Record]:
        """Yields one record per image of the split, always in the same order; shuffling comes later.

        Every wnid of a record is in ``wnids``; an unlabelled image has none. Raises SourceError for a file that
        contradicts the layout, and TruncatedSourceError, after every complete record, if an archive is truncated.
        """
        ...


def open_source(path: str | Path, spool: Path | None = None) -> Source:
    """Opens the raw data set at ``path`` (a path or URL), whatever its layout.

    ``spool`` is a folder into which a compressed archive is decompressed. Raises SourceError if the layout is unknown.
    """
    from imgtool.pipelines.archives import compressed
    from imgtool.pipelines.archives.file_tree import FileTree, archive_kind
    from imgtool.pipelines.sources.hugging_face import HuggingFace
    from imgtool.pipelines.sources.ilsvrc2012 import ILSVRC2012, TEST_ARCHIVES, TRAIN_ARCHIVE, VAL_ARCHIVE
    from imgtool.pipelines.sources.imagenet21k import ImageNet21k
    from imgtool.pipelines.sources.label_tables import ENDINGS
    from imgtool.pipelines.sources.listed_images import ListedImages

    parent, _, name = str(path).rstrip("/").rpartition("/")
    parent = parent or ("/" if str(path).startswith("/") else ".")
    is_file = _is_file(path)
    if name in (TRAIN_ARCHIVE, VAL_ARCHIVE, *TEST_ARCHIVES):
        raise SourceError(f"{path}: is one archive of several; give the folder that holds them: --src {parent}")
    kind = "folder"
    if is_file:
        with contextlib.closing(open_folder(parent).open(name)) as file:
            kind = archive_kind(file, name)
    if kind in compressed.OPENERS or (not kind and name.lower().endswith(compressed.SUFFIXES)):
        if is_url(path):
            raise SourceError(f"{path}: compressed archives are read from a local disk only; copy it there first")
        if spool is None:
            raise SourceError(f"{path}: a compressed archive is decompressed to disk first; give --spool FOLDER")
        with compressed.unpacked(Path(path), spool) as unpacked:
            return open_source(unpacked)
    if kind in ("7z", "rar"):
        raise SourceError(f"{path}: is a {kind} archive, which cannot be read in place; unpack it and give the folder")
    if not is_file and ILSVRC2012.recognise(str(path)):
        return ILSVRC2012(str(path))
    if kind == "parquet":
        return HuggingFace(parent, [name])
    if kind in ("folder", "tar") and ImageNet21k.recognise(*(parent, name) if is_file else (str(path), None)):
        return ImageNet21k(*(parent, name) if is_file else (str(path), None))
    if is_file and name.lower().endswith(ENDINGS):
        tree = FileTree(parent)
        return ListedImages.of_table(tree, next(known for known, one in tree.files.items() if one.file == name))
    if kind in ("folder", "tar", "zip"):
        return _open_tree(FileTree(parent, name) if is_file else FileTree(str(path)))
    raise SourceError(f"{path}: is no archive, table or parquet file that is read; {LAYOUTS}")


LAYOUTS = (
    "give --src one of: a folder with ILSVRC2012_img_train.tar, _val.tar or _test.tar; Tiny-ImageNet, Kaggle's tree or "
    "class folders (CLASS/IMAGE, or train/CLASS/IMAGE), or images with a CSV or JSON table of paths and labels, each "
    "as a folder, tar (.gz, .bz2, .xz, .zst) or zip; WebDataset tars; ImageNet-21k's tar of class tars, or a folder of "
    "them; Hugging Face's parquet files"
)


def _open_tree(tree: FileTree) -> Source:
    """Opens the raw data set in a tree of files."""
    from imgtool.pipelines.sources.class_folders import ClassFolders
    from imgtool.pipelines.sources.hugging_face import HuggingFace
    from imgtool.pipelines.sources.layout import first
    from imgtool.pipelines.sources.listed_images import ListedImages
    from imgtool.pipelines.sources.tiny_imagenet import TinyImageNet
    from imgtool.pipelines.sources.webdataset import WebDataset

    if TinyImageNet.recognise(tree):
        return TinyImageNet(tree)
    if tree.truncated and any("/images/" in name for name in tree.files):
        raise SourceError(f"{tree.truncated}; Tiny-ImageNet's list of classes is missing, so download it again")
    tables = ListedImages.tables(tree)
    if not tables and WebDataset.recognise(tree):
        tars = WebDataset.shards(tree)
        images = [name for name in tree.images() if "/" in name] if tars else []
        if len({name.rpartition("/")[0] for name in images}) > 1 or (images and ClassFolders.recognise(tree)):
            raise SourceError(
                f"{tree.path}: has WebDataset tars ({first(tars)}) and class folders ({first(images)}), "
                "and only one of them can be read; move the others out of the folder"
            )
        return WebDataset(tree)
    if HuggingFace.recognise(tree):
        return HuggingFace.from_tree(tree)
    listed: ListedImages | SourceError | None = None
    if tables:
        try:
            listed = ListedImages(tree, tables)
        except SourceError as error:
            listed = error
        else:
            if not listed.repeats_folders():
                return listed
    if ClassFolders.recognise(tree):
        return ClassFolders(tree)
    if isinstance(listed, SourceError):
        raise listed
    if listed:
        return listed
    raise SourceError(_unknown(tree))


def _unknown(tree: FileTree) -> str:
    """Returns the message about a tree of unknown layout: what is in it, and what is read."""
    from imgtool.pipelines.sources.layout import seen

    if tree.truncated:
        return f"{tree.truncated}; before that it has {seen(tree)}, no class folders; download it again"
    if "dataset.json" in tree.files:
        return f"{tree.path}: is a data set that imgtool prepared; give the raw data set that it was made from"
    archives = [name for name in tree.files if name.lower().endswith(ARCHIVES)]
    hint = ""
    if archives and tree.files[archives[0]].member:
        hint = f"it holds archives ({archives[0]}), which are not read inside another one: unpack it first; "
    elif archives:
        hint = f"to read an archive, give its path: --src {tree.path}/{archives[0]}; "
    return f"{tree.path}: unknown layout: has {seen(tree)}, no class folders; {hint}{LAYOUTS}"


def _is_file(path: str | Path) -> bool:
    if is_url(path):
        try:
            return open_folder(path).kind() == "file"
        except FileNotFoundError as error:
            raise SourceError(f"{path}: {error.strerror}; check the URL") from error
    if not os.path.exists(path):
        raise SourceError(f"{path}: no such file or folder; --src takes a raw data set")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path}: permission denied; make it readable for this user")
    return not os.path.isdir(path)
