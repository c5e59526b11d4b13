"""JPEG files of every kind that the codec has to decode, and raw archives for the tests of sources."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TarOf = Callable[..., bytes]
MembersOf = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="session")
def tar_of() -> TarOf:
    """``tar_of(members, mode)``: the bytes of a tar with these members, bytes by name."""

    def make(members: dict[str, bytes], mode: str = "w") -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def members_of() -> MembersOf:
    """``members_of(path)``: the bytes of a tar's files by name."""

    def read(path: Path) -> dict[str, bytes]:
        with tarfile.open(path) as archive:
            return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}

    return read


@pytest.fixture
def archives(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the drawn ILSVRC2012 archives, to change."""
    return Path(shutil.copytree(drawn, tmp_path / "ILSVRC2012"))


@pytest.fixture
def whole21k(mini: Path, members_of: MembersOf, tar_of: TarOf, tmp_path: Path) -> Path:
    """40 real class tars with the name and layout of winter21_whole.tar, and a class tar without images."""
    members = {f"winter21_whole/{name}": data for name, data in members_of(mini / "ILSVRC2012_img_train.tar").items()}
    path = tmp_path / "winter21_whole.tar"
    path.write_bytes(tar_of(dict(list(members.items())[:40]) | {"winter21_whole/n00007846.tar": b""}))
    return path


@pytest.fixture(scope="session")
def jpegs(
    draw_image: Callable[..., np.ndarray], encoded: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """One file per kind: samplings, colour spaces, progressive, restart markers, EXIF, odd sizes, damaged."""
    files = {}
    for sampling, name in enumerate(("444", "422", "420")):
        files[name] = encoded(draw_image(149, 101, sampling), quality=93, subsampling=sampling)
        files[f"{name} progressive"] = encoded(draw_image(98, 75, 3), subsampling=sampling, progressive=True)
        files[f"{name} restarts"] = encoded(draw_image(120, 87, 4), subsampling=sampling, restart_marker_blocks=3)
        files[f"{name} coarse"] = encoded(draw_image(64, 64, 5), subsampling=sampling, quality=3, optimize=True)
    noise = np.random.default_rng(0).integers(0, 256, (81, 90, 3), np.uint8)
    files["noise"] = encoded(noise, quality=100, subsampling=0)
    files["one pixel"] = encoded(noise[:1, :1])
    files["thin"] = encoded(noise[:2], quality=80)
    image = Image.fromarray(draw_image(111, 66, 6))
    for mode in ("L", "CMYK"):
        files[mode] = encoded(image.convert(mode))
    files["rgb"] = encoded(image, keep_rgb=True)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"exif {orientation}"] = encoded(image, exif=exif)
    whole = files["420 restarts"]
    files["truncated"] = whole[: len(whole) // 2]
    files["damaged"] = whole[: len(whole) // 2] + bytes(40) + whole[len(whole) // 2 + 40 :]
    files["overflowing"] = overflowing(encoded)
    folder = tmp_path_factory.mktemp("jpegs")
    for name, data in files.items():
        (folder / f"{name}.jpg").write_bytes(data)
    return sorted(folder.iterdir())


def overflowing(encoded: Callable[..., bytes]) -> bytes:
    """4:4:4 whose blocks change from the smallest to the largest value that can be written, times the largest step."""
    data = encoded(np.zeros((64, 64, 3), np.uint8), subsampling=0)
    data = re.sub(rb"\xff\xdb\0\x43([\0\1]).{64}", lambda m: b"\xff\xdb\0\x83" + _sixteen_bits(m[1]), data, flags=re.S)
    scan = data.index(b"\xff\xda") + 2 + 12
    bits = ""
    for block in range(64):
        # The difference of 11 bits of a block's mean to that before it, and the end of the block, in the standard's
        # codes for luma and chroma: 16 times up, 32 times down, … past both ends of 16 bits.
        value = "1" * 11 if (block + 16) // 32 % 2 == 0 else "0" * 11
        bits += "111111110" + value + "1010" + 2 * ("11111111110" + value + "00")
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return data[:scan] + coded + b"\xff\xd9"


def _sixteen_bits(number: bytes) -> bytes:
    """A quantiser table of the largest steps."""
    return bytes([0x10 | number[0]]) + 128 * b"\xff"
