"""The zip archives that torch.save writes, checked before anything is read from them.

The members must be stored uncompressed, within the file, one after the other and each under its own name: what is read
from the archive is never larger than the file. Nothing is extracted to disk.
"""

import zlib
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from imgtool.pipelines.archives import zip as zips
from imgtool.pipelines.archives.links import Links
from imgtool.pipelines.records import Locator
from imgtool.pipelines.storage.folders import LocalFile
from imgtool.pipelines.storage.passed_over import PassedOver
from imgtool.wordnet.errors import CheckpointError

MAX_MEMBERS = 1 << 16  # one per tensor; a network has at most a few thousand, an optimiser a few times as many
MAX_PICKLE_BYTES = 16 << 20  # a real data.pkl names a few thousand tensors: under 1 MB
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the first bytes of files before torch 1.6


class TorchArchive:
    """The members of a torch file, by their names within its only folder. A context manager, which closes the file.

    Raises CheckpointError for an archive that torch does not write, and ValueError or SourceError for a damaged one or
    another file. The messages do not name the file.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = LocalFile(str(path))
        try:
            self._index()
        except BaseException:
            self.close()
            raise

    def _index(self) -> None:
        if self._file.read(0, len(LEGACY_MAGIC)) == LEGACY_MAGIC:
            raise CheckpointError(
                "it has the format of torch before 1.6, which is not supported: load it with torch.load where the "
                "program that wrote it is installed, and save it again with torch.save"
            )
        members: list[Locator] = []
        for member in zips.scan(self._file, "the archive", Links(PassedOver())):
            if len(members) == MAX_MEMBERS:
                raise CheckpointError(f"it has more than {MAX_MEMBERS:,} members")
            if _method(member) != zips.STORED:
                raise CheckpointError(f"its member {member.member[:100]} is compressed, which torch never does")
            members.append(member)
        if sum(member.size for member in members) > self._file.size:
            raise CheckpointError("its members claim more bytes than the file has")
        members.sort(key=lambda member: member.offset)
        for one, other in pairwise(members):
            if one.offset + zips.LOCAL.size + one.size > other.offset:
                raise CheckpointError(f"its members {one.member[:100]} and {other.member[:100]} overlap")
        folders = [member.member.removesuffix("data.pkl") for member in members if _is_pickle(member.member)]
        if len(folders) != 1:
            raise ValueError(f"it has {len(folders)} data.pkl instead of one")
        ends = [*(member.offset for member in members[1:]), self._file.size]
        self._members = {
            member.member.removeprefix(folders[0]): (member, end)
            for member, end in zip(members, ends, strict=True)
            if member.member.startswith(folders[0])
        }
        if len({member.member for member in members}) < len(members):
            raise CheckpointError("two of its members have the same name")
        if "byteorder" in self._members and self.read("byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")

    def __enter__(self) -> "TorchArchive":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def pickle(self) -> bytes:
        """Returns data.pkl, at most MAX_PICKLE_BYTES."""
        if self._members["data.pkl"][0].size > MAX_PICKLE_BYTES:
            raise ValueError(f"its data.pkl is longer than {MAX_PICKLE_BYTES:,} bytes")
        return self.read("data.pkl")

    def read(self, name: str) -> bytes:
        """Returns a member's bytes, after comparing them with their checksum."""
        if name not in self._members:
            raise ValueError(f"it has no member {name[:100]!r}")
        member, limit = self._members[name]
        header = self._file.read(member.offset, zips.LOCAL.size)
        if len(header) < zips.LOCAL.size or header[:4] != b"PK\3\4":
            raise ValueError(f"its member {name[:100]!r} is not where its directory says")
        *_, name_bytes, extra_bytes = zips.LOCAL.unpack(header)
        begin = member.offset + zips.LOCAL.size + name_bytes + extra_bytes
        if begin + member.size > limit:
            raise CheckpointError(f"its member {name[:100]!r} overlaps the next one")
        content = self._file.read(begin, member.size)
        if len(content) != member.size or zlib.crc32(content) != _checksum(member):
            raise ValueError(f"its member {name[:100]!r} does not have the stated checksum")
        return content


def _is_pickle(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/data.pkl")


def _method(member: Locator) -> int:
    return int(member.packing.split(":")[1])


def _checksum(member: Locator) -> int:
    return int(member.packing.split(":")[3])
