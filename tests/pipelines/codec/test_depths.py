"""Images that Pillow decodes: samples of any depth and colour mode, and that nothing is printed meanwhile."""

from __future__ import annotations

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from imgtool.pipelines import codec

RAMP = np.tile(np.linspace(0, 1, 256), (4, 1))
SIXTEEN = (RAMP * 65535).astype(np.uint16)


def saved(pixels: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(buffer, form, **options)
    return buffer.getvalue()


def grey_tiff(samples: bytes, bits: int, photometric: int = 1, kind: int = 1) -> bytes:
    """Returns a TIFF of 256 x 4 grey samples, little-endian. ``kind``: 1 unsigned, 2 signed, 3 floats."""
    tags = [(256, 256), (257, 4), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 4)]
    tags += [(279, len(samples)), (339, kind)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    start = b"II" + struct.pack("<HI", 42, 8 + len(samples))
    return start + samples + struct.pack("<H", len(tags)) + entries + bytes(4)


def twelve_bits() -> bytes:
    """Samples of 12 bits: two in three bytes."""
    values = (RAMP * 4095).astype(np.uint32).reshape(-1, 2)
    packed = values[:, 0] << 12 | values[:, 1]
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1).astype(np.uint8).tobytes()


def plain_pgm() -> bytes:
    return b"P2 256 4 65535\n" + " ".join(map(str, SIXTEEN.ravel())).encode()


DEEP = {
    "PNG": lambda: saved(SIXTEEN, "PNG"),
    "TIFF": lambda: saved(SIXTEEN, "TIFF"),
    "TIFF, LZW": lambda: saved(SIXTEEN, "TIFF", compression="tiff_lzw"),
    "TIFF, big-endian": lambda: saved(SIXTEEN.astype(">u2"), "TIFF"),
    "TIFF, 12 bits": lambda: grey_tiff(twelve_bits(), 12),
    "TIFF, white is zero": lambda: grey_tiff((65535 - SIXTEEN).tobytes(), 16, photometric=0),
    "TIFF, signed": lambda: grey_tiff((RAMP * 65535).astype(np.int32).tobytes(), 32, kind=2),
    "JPEG 2000": lambda: saved(SIXTEEN, "JPEG2000"),
    "PGM": lambda: b"P5 256 4 65535\n" + SIXTEEN.astype(">u2").tobytes(),
    "PGM of 10 bits": lambda: b"P5 256 4 1023\n" + (RAMP * 1023).astype(">u2").tobytes(),
    "PGM of 4 bits": lambda: b"P5 256 4 15\n" + np.rint(RAMP * 15).astype(np.uint8).tobytes(),
    "PGM as text": plain_pgm,
    "PPM": lambda: b"P6 256 4 65535\n" + np.repeat(SIXTEEN[..., None], 3, 2).astype(">u2").tobytes(),
    "int32, 8 bits used": lambda: saved((RAMP * 255).astype(np.int32), "TIFF"),
    "int32, 16 bits used": lambda: saved((RAMP * 65535).astype(np.int32), "TIFF"),
    "int32, 31 bits used": lambda: saved((RAMP * (2**31 - 1)).astype(np.int32), "TIFF"),
    "int32, negative": lambda: saved((RAMP * 2000 - 1000).astype(np.int32), "TIFF"),
    "float, 0 to 1": lambda: saved(RAMP.astype(np.float32), "TIFF"),
    "float, 0 to 255": lambda: saved((RAMP * 255).astype(np.float32), "TIFF"),
    "float, 0 to 65535": lambda: saved((RAMP * 65535).astype(np.float32), "TIFF"),
    "float, -1 to 1": lambda: saved((RAMP * 2 - 1).astype(np.float32), "TIFF"),
    "float, huge": lambda: saved((RAMP * 6e38 - 3e38).astype(np.float32), "TIFF"),
    "PFM": lambda: b"Pf\n256 4\n-1.0\n" + RAMP.astype("<f4").tobytes(),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_grey_is_scaled(kind):
    pixels = codec.decode(DEEP[kind]()).astype(int)
    assert pixels.shape == (4, 256, 3)
    assert np.abs(pixels - np.arange(256)[:, None]).max() <= (9 if "4 bits" in kind else 1)


def test_a_dark_image_stays_dark():
    """The range is the format's, not the image's, where the format states one."""
    for data in (saved(SIXTEEN // 300, "PNG"), b"P5 256 4 65535\n" + (SIXTEEN // 300).astype(">u2").tobytes()):
        assert codec.decode(data).max() == 0


def test_floats_that_are_not_finite():
    samples = RAMP.astype(np.float32)
    samples[0, :3] = np.nan, np.inf, -np.inf
    pixels = codec.decode(saved(samples, "TIFF"))[..., 0]
    assert pixels[0, :3].tolist() == [0, 255, 0]
    assert pixels[1].tolist() == list(range(256))
    samples[:] = np.nan
    assert codec.decode(saved(samples, "TIFF")).max() == 0
    assert codec.decode(saved(np.full((4, 256), 1e9, np.float32), "TIFF")).max() == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr"])
def test_modes_are_converted_as_pillow_does(draw_image, mode):
    image = Image.fromarray(draw_image(40, 30)).convert("L" if mode == "PA" else "RGB")
    image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    form = {"CMYK": "TIFF", "YCbCr": "TIFF", "RGBX": "TIFF", "PA": "TIFF"}.get(mode, "PNG")
    data = saved(image, form)
    with Image.open(io.BytesIO(data)) as opened:
        want = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(codec.decode(data), want)


def test_transparency_is_dropped(draw_image):
    pixels = draw_image(40, 30)
    clear = np.concatenate([pixels, np.zeros((30, 40, 1), np.uint8)], 2)
    np.testing.assert_array_equal(codec.decode(saved(clear, "PNG")), pixels)
    palette = Image.fromarray(pixels).convert("P")
    want = np.asarray(palette.convert("RGB"))
    for transparency in (3, bytes(range(200))):
        np.testing.assert_array_equal(codec.decode(saved(palette, "PNG", transparency=transparency)), want)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_frame_is_taken(draw_image, form):
    frames = [Image.fromarray(draw_image(40, 30, seed)) for seed in range(3)]
    options = {"WEBP": {"lossless": True}, "MPO": {"quality": 98, "subsampling": 0}}.get(form, {})
    data = saved(frames[0], form, save_all=True, append_images=frames[1:], **options)
    got = codec.decode(data).astype(int)
    first, second = (np.abs(got - np.asarray(frame)).mean() for frame in frames[:2])
    assert first < 8 < second  # GIF has 256 colours


def test_nothing_is_printed(tmp_path):
    """Neither Pillow's warnings nor its log, nor what libtiff writes."""

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        return struct.pack("<HHII", tag, kind, count, value)

    palette = Image.new("P", (8, 8))
    good = saved(SIXTEEN, "TIFF", compression="tiff_lzw")
    files = {
        "transparency": saved(palette, "PNG", transparency=bytes(range(200))),
        "bomb": b"P5 9500 9500 255\n" + bytes(9500 * 9500),
        "cut": good[: len(good) // 2],
        "cut tags": good[:-20],
        "too many samples": grey_tiff(bytes(1024), 8).replace(entry(277, 3, 1, 1), entry(277, 3, 1, 99)),
        "offset beyond the end": grey_tiff(bytes(1024), 8).replace(entry(339, 3, 1, 1), entry(700, 1, 99999, 9999999)),
        "damaged": good[:12] + b"\xff" * 90 + good[102:],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code = """
import sys, pathlib
from imgtool.pipelines import codec
from imgtool.wordnet.errors import ImageError
for path in sys.argv[1:]:
    try:
        codec.recode(pathlib.Path(path).read_bytes(), max_side=50)
    except ImageError as error:
        pass
"""
    command = [sys.executable, "-W", "always", "-c", code, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
