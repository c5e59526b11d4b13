"""Shard formats, one module a format, writer and reader side by side."""

FORMATS = {"beton": ("beton",), "wds": ("wds",), "both": ("beton", "wds")}
"""The formats of shards by the value of ``--format``."""
