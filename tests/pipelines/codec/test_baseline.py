"""Our entropy coding and DCT, compared with libjpeg's: the same bytes where both do the same."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from imgtool.pipelines import codec
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import ImageError

pytestmark = pytest.mark.numeric


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def noise(width: int, height: int, mode: str, strength: float, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = 128 + 100 * np.sin((x[..., None] + [0, 9, 40]) / 29 + y[..., None] / 17)
    pixels = np.clip(smooth + rng.normal(0, strength, (height, width, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def libjpeg(data: bytes, quality: int) -> bytes:
    """Decodes and encodes a grey image with libjpeg. In RGB, it keeps its exact luma and neutral chroma."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "L"
        pixels = np.repeat(np.asarray(image)[..., None], 3, axis=2)
    return codec.encode(np.ascontiguousarray(pixels), quality=quality)


@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    strength=st.sampled_from([0, 2, 20, 120]),
    source=st.integers(1, 100),
    quality=st.integers(1, 100),
    options=st.sampled_from(
        [{}, {"optimize": True}, {"restart_marker_blocks": 1}, {"restart_marker_blocks": 7}, {"restart_marker_rows": 1}]
    ),
)
@example(150, 150, 120, 100, 100, {"optimize": True})
@settings(max_examples=150)
def test_grey_images_are_coded_as_libjpeg_does(width, height, strength, source, quality, options):
    """Covers every part: Huffman decoding, inverse DCT, DCT, quantisation, Huffman coding, headers."""
    data = saved(noise(width, height, "L", strength), quality=source, **options)
    assert codec.recode(data, quality=quality).data == libjpeg(data, quality)


def test_real_grey_images_are_coded_as_libjpeg_does(mini):
    source = open_source(mini)
    with LocatorReader(source.root) as reader:
        for record in list(source.records("train"))[::10]:
            with Image.open(io.BytesIO(reader.read(record.locator))) as image:
                data = saved(image.convert("L"), quality=92)
            assert codec.recode(data, quality=85).data == libjpeg(data, 85)


@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    quality=st.integers(1, 100),
    strength=st.sampled_from([0, 9, 99]),
)
@settings(max_examples=100)
def test_recoding_at_the_same_quality_changes_nothing(width, height, quality, strength):
    data = saved(noise(width, height, "RGB", strength), quality=quality, subsampling=2)
    assert codec.recode(data, quality=quality).data == data


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (8, 8), (250, 99)])
@pytest.mark.parametrize("quality", [50, 90, 100])
def test_smooth_chroma_is_halved_without_loss(size, quality):
    """Halving in the DCT domain equals the mean of 2 x 2, without shift or scale, also in a half-filled last MCU."""
    image = noise(*size, "RGB", 0)
    got = np.asarray(
        Image.open(io.BytesIO(codec.recode(saved(image, quality=98, subsampling=0), quality=quality).data))
    )
    want = np.asarray(Image.open(io.BytesIO(saved(image, quality=quality, subsampling=2))))
    assert np.abs(got.astype(int) - want).mean() < 1.5 + 100 / quality**0.9


@given(
    at=st.integers(0, 4000),
    junk=st.binary(min_size=1, max_size=8),
    cut=st.integers(0, 4000),
    subsampling=st.integers(0, 2),
)
@settings(max_examples=300)
def test_damage_is_never_stored(at, junk, cut, subsampling):
    """Damaged bytes give a complete image or an error, never a damaged file."""
    data = bytearray(saved(noise(90, 70, "RGB", 30), quality=90, subsampling=subsampling))
    data[at : at + len(junk)] = junk
    data = bytes(data[: len(data) - cut] if cut < len(data) // 2 else data)
    try:
        recoded = codec.recode(data)
    except ImageError:
        return
    assert not codec.recode(recoded.data).repairs
    assert codec.check(recoded.data) == (recoded.width, recoded.height)
