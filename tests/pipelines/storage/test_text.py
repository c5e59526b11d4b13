"""Text files and file names of unknown origin."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.pipelines.storage.text import decode_name, decode_text

ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n")))
def test_any_encoding_and_line_end(encoding, text):
    text = text.lstrip("\ufeff")
    for end in ("\n", "\r\n", "\r"):
        data = ENCODINGS[encoding] + text.replace("\n", end).encode(encoding)
        assert decode_text(data) == text


@given(st.binary(max_size=200))
def test_any_bytes(data):
    decode_text(data).encode("utf-8", "replace")
    decode_name(data).encode()


def test_latin_1():
    assert decode_text(b"caf\xe9\r\n") == "café\n"
    assert decode_name("猫/".encode() + b"caf\xe9.jpg") == "猫/café.jpg"
