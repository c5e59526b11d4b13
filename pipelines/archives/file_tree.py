"""A data set's files by name, the same whether the data set is a folder, a tar or a zip."""

from __future__ import annotations

import os

from imgtool.pipelines.archives import tar
from imgtool.pipelines.archives import zip as zips
from imgtool.pipelines.archives.outputs import outputs_in
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.records import Locator
from imgtool.pipelines.storage.folders import join, open_folder
from imgtool.wordnet.errors import ImageError, SourceError, TruncatedSourceError


class FileTree:
    """The files below the folder ``root`` (a path or URL), or in the ``archive`` (.tar or .zip) in this folder.

    ``files`` maps a file's path, with forward slashes, to its locator. A top-level folder that holds everything is left
    out of the paths. ``path`` is the folder's or archive's path, for messages. ``truncated`` is the message about a
    truncated tar, whose complete members are in ``files``, else None. A truncated zip raises TruncatedSourceError,
    because its directory is at its end.

    Prepared data sets and runs below a folder are left out; ``notes`` has a line for each. Raises SourceError if the
    folder is one itself.
    """

    def __init__(self, root: str, archive: str | None = None) -> None:
        self.path = root if archive is None else join(root, archive)
        self.root = root
        self.truncated: str | None = None
        self.notes: list[str] = []
        folder = open_folder(root)
        if archive is None:
            files = {name: Locator(name, "", 0, size) for name, size in folder.walk()}
            for output, kind in outputs_in(files).items():
                if not output:
                    raise SourceError(f"{root}: is {kind}, not a raw data set; give --src what it was made from")
                inside = [name for name in files if name.startswith(output)]
                self.notes.append(f"{output.rstrip('/')} is {kind}: its {len(inside):,} files are passed over")
                for name in inside:
                    del files[name]
        else:
            files = {}
            file = folder.open(archive)
            try:
                if archive.endswith(".zip"):
                    # macOS stores attributes of the files in a folder of this name
                    files = {m.member: m for m in zips.scan(file, archive) if not m.member.startswith("__MACOSX/")}
                else:
                    for member in tar.scan(file, archive):
                        files[member.name] = Locator(archive, member.name, member.offset, member.size)
            except TruncatedSourceError as error:
                if not files:
                    raise
                self.truncated = str(error)
            finally:
                file.close()
        self.files = _without_common_folder(files)

    def read_text(self, name: str) -> str:
        """Returns the content of a small text file, decoded as UTF-8. Raises SourceError if it is damaged."""
        with LocatorReader(self.root) as reader:
            try:
                return reader.read(self.files[name]).decode("utf-8", "replace")
            except ImageError as error:
                raise SourceError(f"{self.path}: {name}: {error}") from None


def _without_common_folder(files: dict[str, Locator]) -> dict[str, Locator]:
    # tiny-imagenet-200/wnids.txt in a tar becomes wnids.txt, as in a folder
    common = os.path.commonprefix([min(files, default=""), max(files, default="")])  # noqa: RUF071  (the common characters, not folders)
    top = common.rfind("/") + 1
    return {name[top:]: locator for name, locator in files.items()} if top else files
