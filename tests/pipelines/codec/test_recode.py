"""Recoding: quality compared with Pillow's decode, resize and encode; which files are kept unchanged and which not."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgtool.pipelines import codec
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import ImageError, InputError

pytestmark = pytest.mark.numeric

SUBSAMPLINGS = {"444": 0, "422": 1, "420": 2}  # Pillow's numbers


def pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def psnr(data: bytes, want: np.ndarray) -> float:
    """Returns the PSNR in dB of a JPEG relative to pixels."""
    return 10 * np.log10(255**2 / max(np.mean((pillow(data) - want.astype(float)) ** 2), 1e-9))


def pillow_recode(data: bytes, size: tuple[int, int], subsampling: str = "420") -> tuple[bytes, np.ndarray]:
    """Recodes with Pillow; returns the JPEG, and the pixels before encoding."""
    image = Image.fromarray(pillow(data)).resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=SUBSAMPLINGS[subsampling])
    return buffer.getvalue(), np.asarray(image)


def tables(data: bytes) -> dict:
    with Image.open(io.BytesIO(data)) as image:
        return image.quantization


@pytest.mark.parametrize("side", [500, 400, 256])
def test_real_images_keep_their_quality(mini, side):
    """A recoded image is as close to the resized original as Pillow's: .1 dB less on average, .6 dB at worst."""
    differences = []
    source = open_source(mini)
    with LocatorReader(source.root) as reader:
        for record in list(source.records("val")):
            data = reader.read(record.locator)
            recoded = codec.recode(data, max_side=side, quality=90)
            theirs, pixels = pillow_recode(data, (recoded.width, recoded.height))
            differences.append(psnr(recoded.data, pixels) - psnr(theirs, pixels))
    assert np.mean(differences) > -0.1
    assert np.min(differences) > -0.6


@pytest.mark.parametrize("source", SUBSAMPLINGS)
@pytest.mark.parametrize("target", SUBSAMPLINGS)
@pytest.mark.parametrize("size", [(320, 240), (321, 239), (33, 200)])
def test_any_subsampling_to_any(draw_image, encoded, source, target, size):
    data = encoded(draw_image(*size, 3), quality=95, subsampling=SUBSAMPLINGS[source])
    for side in (0, 200, 100, 31):
        recoded = codec.recode(data, max_side=side, subsampling=target)
        theirs, pixels = pillow_recode(data, (recoded.width, recoded.height), target)
        assert psnr(recoded.data, pixels) > psnr(theirs, pixels) - 2, side
        header = codec.probe(recoded.data)
        assert header["sampling"] == codec.SUBSAMPLINGS[target]
        assert (header["width"], header["height"]) == (recoded.width, recoded.height)
        assert tables(recoded.data) == tables(theirs), "libjpeg's tables of quality 90"


@pytest.mark.parametrize(
    "width, height", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 9), (8, 8), (16, 16), (17, 33), (300, 50)]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_odd_sizes(encoded, width, height, mode):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8)).resize((width, height)).convert(mode)
    for subsampling, side in itertools.product(SUBSAMPLINGS, (0, 6)):
        data = encoded(smooth, quality=95, **({"subsampling": SUBSAMPLINGS[subsampling]} if mode == "RGB" else {}))
        recoded = codec.recode(data, max_side=side)
        theirs, pixels = pillow_recode(data, (recoded.width, recoded.height))
        assert (
            np.abs(pillow(recoded.data).astype(int) - pixels).mean()
            < 6 + np.abs(pillow(theirs) - pixels.astype(int)).mean()
        )
        assert recoded.repairs == (("grayscale",) if mode == "L" else ())


def test_a_flat_image_stays_flat(encoded):
    """A uniform image keeps its value in every pixel at any scale, within the rounding of YCbCr."""
    data = encoded(Image.new("RGB", (301, 203), (200, 30, 60)), quality=100, subsampling=0)
    for side in (0, 300, 150, 77, 8):
        pixels = pillow(codec.recode(data, max_side=side, quality=100).data).astype(int)
        assert np.abs(pixels - pillow(data)[0, 0]).max() <= 3


def fit(data: bytes, **options) -> codec.Recoded:
    return codec.recode(data, store="fit", **options)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS.values())
def test_images_that_fit_are_stored_unchanged(draw_image, encoded, subsampling):
    data = encoded(draw_image(), quality=71, subsampling=subsampling, comment=b"kept")
    for options in ({}, {"max_side": 320}, {"short_side": 240}, {"quality": 20, "subsampling": "444"}):
        recoded = fit(data, **options)
        assert (recoded.data, recoded.how) == (data, "passed")
        assert (recoded.width, recoded.height) == (recoded.source_width, recoded.source_height) == (320, 240)
    assert fit(data, max_side=319).how == "recoded"
    assert fit(encoded(draw_image(), restart_marker_blocks=4)).how == "passed"


def test_a_progressive_image_is_rewritten_with_the_same_pixels(draw_image, encoded):
    for subsampling in SUBSAMPLINGS.values():
        data = encoded(draw_image(321, 243), progressive=True, subsampling=subsampling)
        recoded = fit(data)
        assert recoded.how == "transcoded"
        assert not codec.probe(recoded.data)["progressive"]
        np.testing.assert_array_equal(pillow(recoded.data), pillow(data))


def test_larger_sampling_factors_than_needed_are_reduced(encoded):
    """4:4:4 written as 2x1, 2x1, 2x1, which many readers refuse.

    The scan is made by hand with the luma tables: 24 blocks whose DC differs from the one before by +1 or -1 (code 010
    and a bit) and that have no other coefficients (1010).
    """
    data = encoded(Image.new("RGB", (32, 16)), subsampling=0)
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    header = bytearray(data[: scan + 14])
    for component in range(3):
        header[frame + 11 + 3 * component] = 0x21
        header[scan + 6 + 2 * component] = 0x00
    bits = "".join("010" + ("1" if block % 5 else "0") + "1010" for block in range(24))
    odd = bytes(header) + int(bits, 2).to_bytes(24, "big") + b"\xff\xd9"
    assert len(np.unique(pillow(odd))) > 4
    recoded = fit(odd)
    assert (recoded.how, codec.probe(recoded.data)["sampling"]) == ("transcoded", (1, 1))
    np.testing.assert_array_equal(pillow(recoded.data), pillow(odd))


def test_images_that_do_not_fit_are_recoded(draw_image, encoded):
    image = Image.fromarray(draw_image())
    turned = Image.Exif()
    turned[0x0112] = 6
    for data, repairs in (
        (encoded(image.convert("CMYK")), ("cmyk",)),
        (encoded(image.convert("L")), ("grayscale",)),
        (encoded(image, exif=turned), ("exif",)),
        (encoded(image, "PNG"), ("png",)),
    ):
        recoded = fit(data)
        assert (recoded.how, recoded.repairs) == ("recoded", repairs)
        assert codec.probe(recoded.data)["space"] == "ycbcr"
    assert fit(encoded(image, exif=turned), exif=False).how == "passed"


def test_bytes_after_an_image_are_dropped(draw_image, encoded):
    data = encoded(draw_image())
    recoded = fit(data + b"a second image, or a downloader's page")
    assert (recoded.data, recoded.how) == (data, "transcoded")


@settings(max_examples=60)
@given(cut=st.integers(1, 20_000))
def test_a_truncated_image_is_never_stored_unchanged(draw_image, encoded, cut):
    data = encoded(draw_image(), quality=95)
    short = data[: max(len(data) - cut, 0)]
    if cut <= 2:
        # only the end marker is missing, no pixels
        np.testing.assert_array_equal(pillow(fit(short).data), pillow(data))
        return
    with pytest.raises(ImageError):
        for _ in range(1):
            recoded = fit(short)
            assert recoded.how == "recoded", "the last bits may be padding"
            if np.abs(pillow(recoded.data).astype(int) - pillow(data)).mean() < 2:
                raise ImageError("whole after all")


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_bytes_never_crash(draw_image, encoded, data):
    options = data.draw(st.sampled_from([{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}]))
    whole = bytearray(encoded(draw_image(96, 80), **options))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(2, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for store in codec.STORES:
        try:
            side = 0 if store == "original" else data.draw(st.sampled_from([0, 50]))
            recoded = codec.recode(bytes(whole), max_side=side, store=store)
        except ImageError:
            continue
        if store == "raw":
            assert len(recoded.data) == 3 * recoded.width * recoded.height
        else:
            assert codec.probe(recoded.data)["width"] == recoded.width


def test_other_settings_are_refused(draw_image, encoded):
    for options, why in (
        ({"store": "gif"}, "store must be one of"),
        ({"subsampling": "411"}, "store must be one of"),
        ({"store": "original", "max_side": 9}, "keeps the sizes of the source"),
    ):
        with pytest.raises(InputError, match=why):
            codec.recode(encoded(draw_image()), **options)


def test_the_same_bytes_each_time(draw_image, encoded):
    for options in ({"max_side": 200}, {"max_side": 101, "subsampling": "444"}, {}):
        results = {codec.recode(encoded(draw_image(), subsampling=0), **options).data for _ in range(5)}
        assert len(results) == 1


@pytest.mark.parametrize(
    "head", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xc5\xd0\xd3\xc6" + bytes(28)]
)
def test_postscript_is_never_executed(monkeypatch, head):
    """Pillow would pass it to Ghostscript, whatever the file's name."""
    from PIL import EpsImagePlugin

    def started(*_args, **_settings):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    for data in (head + b"%%EndComments\n/showpage\n", head + b"\n%ImageData: 9 9 8 3 0 1 1 x\n"):
        with pytest.raises(ImageError, match="not an image"):
            codec.recode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\xd7\xcd\xc6\x9a" + bytes(60),  # WMF
        b"\x01\x00\x00\x00" + bytes(36) + b" EMF" + bytes(60),
        b"SIMPLE  =                    T" + b" " * 2850,  # FITS
        b"\x00\x00\x01\xb3" + bytes(60),  # MPEG
        b"GRIB" + bytes(60),
        b"\x89HDF\r\n\x1a\n" + bytes(60),
    ],
)
def test_formats_that_need_other_programs_are_refused(data):
    with pytest.raises(ImageError, match="not an image"):
        codec.recode(data)


@pytest.mark.parametrize(
    "kind", ["BMP", "DIB", "GIF", "ICO", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"]
)
def test_raster_formats_are_decoded(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 100, 50)).save(buffer, kind)
    assert codec.recode(buffer.getvalue()).width == 32
