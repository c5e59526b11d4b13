"""Raw data sets, one module a layout. Each is recognised from its path alone and yields records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Protocol

from imgtool.pipelines.records import Record
from imgtool.pipelines.storage.folders import is_url, open_folder
from imgtool.wordnet.errors import SourceError


class Source(Protocol):
    """A raw data set.

    ``layout`` names the kind; ``root`` is the folder locators are relative to; ``wnids`` the classes in sorted order;
    ``ilsvrc2012_ids`` the devkit's 1-based ID of a wnid, where the source states it; ``splits`` in order. A source may
    have ``notes``, a list of lines for the user, filled while records are listed.
    """

    layout: ClassVar[str]
    root: str
    wnids: list[str]
    ilsvrc2012_ids: dict[str, int]
    splits: tuple[str, ...]

    def records(self, split: str) -> Iterator[Record]:
        """The images of a split, in the source's own order.

        Raises TruncatedSourceError at the end, after every whole record, if the split's archive ended early.
        """
        ...


def open_source(path: str | Path, spool: Path | None = None) -> Source:
    """Opens the raw data set at ``path`` (or URL), whatever its layout; a compressed archive by way of ``spool``.

    Raises SourceError if it is none that is known here.
    """
    from imgtool.pipelines.archives import compressed
    from imgtool.pipelines.archives.tree import Tree
    from imgtool.pipelines.sources.class_folders import ClassFolders
    from imgtool.pipelines.sources.hugging_face import HuggingFace
    from imgtool.pipelines.sources.ilsvrc2012 import ILSVRC2012, TESTS, TRAIN, VAL
    from imgtool.pipelines.sources.imagenet21k import ImageNet21k
    from imgtool.pipelines.sources.tiny_imagenet import TinyImageNet

    above, _, name = str(path).rstrip("/").rpartition("/")
    above = above or ("/" if str(path).startswith("/") else ".")
    is_file = _is_file(path, above, name)
    if name in (TRAIN, VAL, *TESTS):
        raise SourceError(f"{path}: is one archive of several; give the folder that holds them: --src {above}")
    if is_file and name.endswith(compressed.ENDINGS):
        if spool is None or is_url(path):
            raise SourceError(f"{path}: a compressed archive is read from this machine's disk, into a --spool folder")
        return open_source(compressed.unpacked(Path(path), spool))
    if not is_file and ILSVRC2012.recognise(str(path)):
        return ILSVRC2012(str(path))
    if is_file and name.endswith(".parquet"):
        return HuggingFace(above, [name])
    if (not is_file or name.endswith(".tar")) and ImageNet21k.recognise(
        *(above, name) if is_file else (str(path), None)
    ):
        return ImageNet21k(*(above, name) if is_file else (str(path), None))
    if not is_file or name.endswith((".tar", ".zip")):
        tree = Tree(above, name) if is_file else Tree(str(path))
        if TinyImageNet.recognise(tree):
            return TinyImageNet(tree)
        if tree.truncated and any("/images/" in name for name in tree.files):
            raise SourceError(f"{tree.truncated}; Tiny-ImageNet's class list was behind the cut")
        if HuggingFace.recognise(tree):
            return HuggingFace.of_tree(tree)
        if ClassFolders.recognise(tree):
            return ClassFolders(tree)
    raise SourceError(
        f"{path}: not a layout this version reads; it reads a folder with ILSVRC2012_img_train.tar, _val.tar or "
        "_test.tar; as a folder, tar (.gz, .bz2, .xz) or zip Tiny-ImageNet, Kaggle's tree and any folder of class "
        "folders; ImageNet-21k's tar of class tars, or a folder of them; Hugging Face's parquet files"
    )


def _is_file(path: str | Path, above: str, name: str) -> bool:
    if is_url(path):
        return open_folder(above).size(name) is not None
    if not os.path.exists(path):
        raise SourceError(f"{path}: no such file or folder; --src takes a raw data set")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path}: permission denied")
    return not os.path.isdir(path)
