"""Decodes text files and file names of unknown origin."""

from __future__ import annotations

import codecs

BOMS = (  # UTF-32's begin like UTF-16's, so they come first
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode_text(data: bytes) -> str:
    """Returns the text of a file with "\\n" as line ends: as its byte order mark says, else UTF-8, else Latin-1.

    Bytes that do not fit the byte order mark become U+FFFD.
    """
    for bom, encoding in BOMS:
        if data.startswith(bom):
            text = data[len(bom) :].decode(encoding, "replace")
            break
    else:
        text = _utf8_or_latin1(data)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def without_surrogates(text: str) -> str:
    """Returns the text with "?" for what is no character, as JSON's \\ud800: it cannot be stored as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def decode_name(raw: bytes) -> str:
    """Returns a file's path as text: each part UTF-8, as nearly all are, else Latin-1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "/".join(map(_utf8_or_latin1, raw.split(b"/")))


def _utf8_or_latin1(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # in which every byte is a character
