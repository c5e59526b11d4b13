"""Renders report pages: Jinja2 templates with autoescaping that extend base.html.j2, self-contained in one file."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, **context: Any) -> str:
    """Renders a template file with ``context``. Every value is escaped; a name that is not given raises."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = {"number": number_text, "percent": percent_text, "duration": duration_text, "size": size_text}
    environment.filters.update(filters)
    return environment.get_template(template.name).render(context)


def data_uri(content: bytes, kind: str) -> str:
    """Returns an image file (``kind``: jpeg or png) as a data URI, so that the page needs no other file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def number_text(value: float, digits: int = 4) -> str:
    """Formats with thousands separators: integers and values from 1000 whole, others with ``digits`` significant ones.

    "" for NaN or infinity, as for percentages and durations.
    """
    if not math.isfinite(value):
        return ""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.{digits}g}"


def percent_text(value: float, decimals: int = 0) -> str:
    return f"{value:.{decimals}%}" if math.isfinite(value) else ""


def duration_text(seconds: float) -> str:
    """Formats as h:mm:ss."""
    if not math.isfinite(seconds):
        return ""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def size_text(count: int) -> str:
    """Formats a number of bytes in kB, MB or GB (powers of 1000)."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1000:,.1f} kB"
