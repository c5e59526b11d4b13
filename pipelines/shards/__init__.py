"""Shard formats, one module a format, writer and reader side by side."""
