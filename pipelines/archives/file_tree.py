"""A data set's files by name, the same whether the data set is a folder, a tar or a zip."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from imgtool.pipelines.archives import magic, tar
from imgtool.pipelines.archives import zip as zips
from imgtool.pipelines.archives.links import Links
from imgtool.pipelines.archives.outputs import outputs_in
from imgtool.pipelines.archives.reader import LocatorReader, stored_bytes
from imgtool.pipelines.records import IMAGE_SUFFIXES, OTHER_SUFFIXES, SPLIT_NAMES, Locator
from imgtool.pipelines.storage.folders import RandomAccessFile, join, open_folder
from imgtool.pipelines.storage.passed_over import REPLACED, PassedOver, litter, not_an_image
from imgtool.pipelines.storage.text import decode_name, decode_text
from imgtool.wordnet.errors import ImageError, SourceError, TruncatedSourceError

SMALL_TEXT, MAX_RATIO = 1 << 24, 64
"""Bytes up to which a text may be compressed to any degree, and how often a larger one may be larger than stored."""


class FileTree:
    """The files below the folder ``root`` (a path or URL), or in the ``archive`` (tar or zip) in this folder.

    ``files`` maps a file's path, with forward slashes, to its locator. A top-level folder that holds everything is left
    out of the paths, unless it is a split or a class. ``empty_folders`` are the folders without any of the files, in
    sorted order. ``path`` is the folder's or archive's path, for messages.
    ``passed_over`` counts the files that are not in ``files``, with the reasons: hidden and system files, links that
    lead nowhere, special files, and after `images` those without an image. ``texts`` are the label files that have been
    read. ``truncated`` is the message about a truncated tar, whose complete members are in
    ``files``, else None. A truncated zip raises TruncatedSourceError, because its directory is at its end.

    Prepared data sets and runs below a folder are passed over. Raises SourceError if the folder is one itself, without
    WebDataset shards.
    """

    def __init__(self, root: str, archive: str | None = None) -> None:
        self.path = root if archive is None else join(root, archive)
        self.root = root
        self.truncated: str | None = None
        self.passed_over = PassedOver()
        self.texts: set[str] = set()
        self._is_image: dict[str, bool] = {}
        if archive is None:
            files: dict[str, Locator] = {}
            for name, size in open_folder(root).walk("", self.passed_over):
                files[self._text(name, files)] = Locator(name, "", 0, size)
        else:
            with contextlib.closing(open_folder(root).open(archive)) as file:
                files = self._of_archive(file, archive)
        top = ""
        if archive is None:
            self._pass_over_outputs(files)
        else:
            top = _common_folder(files)  # first, as this folder may be hidden
            files = {name[len(top) :]: locator for name, locator in files.items()} if top else files
        files = {name: locator for name, locator in files.items() if not self.passed_over.add_litter(name)}
        below = _common_folder(files)
        self.files = {name[len(below) :]: locator for name, locator in files.items()} if below else files
        self.empty_folders = self._empty_folders(top + below)

    def _pass_over_outputs(self, files: dict[str, Locator]) -> None:
        for output, kind in outputs_in(files).items():
            if not output and any(name.endswith(".tar") for name in files):
                continue  # its WebDataset shards can be read
            if not output:
                raise SourceError(f"{self.path}: is {kind}, not a raw data set; give --src what it was made from")
            for name in [name for name in files if name.startswith(output)]:
                self.passed_over.add(f"in {kind}", name)
                del files[name]
            inside = {name for name in self.passed_over.folders if f"{name}/".startswith(output)}
            self.passed_over.folders -= inside  # they are no classes without images

    def _of_archive(self, file: RandomAccessFile, archive: str) -> dict[str, Locator]:
        files: dict[str, Locator] = {}
        links = Links(self.passed_over)
        try:
            for name, locator in self._members(file, archive, links):
                if name in files:
                    self.passed_over.add(REPLACED, name)
                    del files[name]  # so that the new one takes its place in the order, too
                files[name] = locator
        except TruncatedSourceError as error:
            if not files:
                raise
            self.truncated = str(error)
        try:
            linked = list(links.resolve(files))
        except SourceError as error:
            raise SourceError(f"{self.path}: {error}") from None
        for name, locator in linked:
            if name in files:
                self.passed_over.add(REPLACED, name)
            else:
                files[name] = locator._replace(member=name)
        return files

    def _members(self, file: RandomAccessFile, archive: str, links: Links) -> Iterator[tuple[str, Locator]]:
        if archive_kind(file, archive) != "zip":
            for member in tar.entries(file, archive, 0, None, links):
                yield member.name, Locator(archive, *member)
        else:
            for locator in zips.scan(file, archive, links):
                yield locator.member, locator

    @staticmethod
    def _text(name: str, taken: dict[str, Locator]) -> str:
        """Returns a file's name as text. Those that are not UTF-8 have surrogates for their bytes."""
        if name.isascii() or name.isprintable():  # surrogates are not printable
            return name
        raw = name.encode("utf-8", "surrogateescape")
        text = decode_name(raw)
        return text if text == name or text not in taken else raw.decode("utf-8", "backslashreplace")

    def _empty_folders(self, top: str) -> list[str]:
        texts = (decode_name(name.encode("utf-8", "surrogateescape")) for name in self.passed_over.folders)
        below = {name[len(top) :] for name in texts if name.startswith(top) and len(name) > len(top)}
        full = set()
        for name in {name.rpartition("/")[0] for name in self.files}:
            while name and name not in full:
                full.add(name)
                name = name.rpartition("/")[0]
        return sorted(name for name in below - full if not litter(name))

    def images(self, names: Iterable[str] | None = None) -> list[str]:
        """Returns which of the files, in order, are images: by their suffix or, where it is unknown, their first bytes.

        The others are added to ``passed_over`` once, except those that `read_text` reads.
        """
        names = list(self.files if names is None else names)
        unknown = [name for name in names if name not in self._is_image and _suffix_says(name) is None]
        with LocatorReader(self.root) as reader:
            heads = reader.heads([self.files[name] for name in unknown], magic.HEAD_BYTES)
            by_content = {name: magic.is_image_head(head) for name, head in zip(unknown, heads, strict=True)}
        found = []
        for name in names:
            if name not in self._is_image:
                self._is_image[name] = by_content[name] if name in by_content else bool(_suffix_says(name))
                if not self._is_image[name] and name not in self.texts:
                    self.passed_over.add(not_an_image(name), name)
            if self._is_image[name]:
                found.append(name)
        return found

    def read_text(self, name: str) -> str:
        """Returns the content of a small text file. Raises SourceError if it is damaged."""
        if name not in self.texts:
            self.texts.add(name)
            if self._is_image.get(name) is False:
                self.passed_over.take_back(not_an_image(name), name)
        locator = self.files[name]
        if locator.size > max(SMALL_TEXT, MAX_RATIO * stored_bytes(locator)):
            raise SourceError(
                f"{self.path}: {name}: its few bytes state a text of {locator.size:,}; do not use this file"
            )
        with LocatorReader(self.root) as reader:
            try:
                return decode_text(reader.read(locator))
            except ImageError as error:
                raise SourceError(f"{self.path}: {name}: {error}") from None


def archive_kind(file: RandomAccessFile, name: str) -> str:
    """Returns what kind of archive a file is (see `magic.archive_kind`): by its content, else by its name, else ""."""
    kind = magic.archive_kind(file.read(0, magic.HEAD_BYTES))
    if kind:
        return kind
    suffix = name.lower().rpartition(".")[2]  # a zip may have other bytes before it; a tar may be damaged
    return suffix if suffix in ("tar", "zip", "parquet") else ""


def _suffix_says(name: str) -> bool | None:
    """Whether a file is an image by its name's suffix; None if the suffix is unknown."""
    lower = name.lower()
    if lower.endswith(IMAGE_SUFFIXES):
        return True
    return False if lower.endswith(OTHER_SUFFIXES) else None


def _common_folder(files: dict[str, Locator]) -> str:
    """Returns the folder that holds everything, with a slash at its end, e.g. tiny-imagenet-200/; "" if none does."""
    first, last = min(files, default=""), max(files, default="")
    top = 0
    while (end := first.find("/", top) + 1) and first[:end] == last[:end]:
        is_class = all("/" not in name[end:] for name in files)
        if is_class or first[top : end - 1].lower() in SPLIT_NAMES:
            break
        top = end
    return first[:top]
