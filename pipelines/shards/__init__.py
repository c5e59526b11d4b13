"""Shard formats: one module per format, writer and reader side by side."""

FORMATS = {"beton": ("beton",), "wds": ("wds",), "both": ("beton", "wds")}
"""Shard formats by the value of ``--format``."""
