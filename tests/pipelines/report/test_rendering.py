"""The report templates: every value is escaped, no placeholder is left empty by mistake, numbers are readable."""

from __future__ import annotations

import math

import pytest
from jinja2 import UndefinedError

from imgtool.pipelines.report.rendering import duration_text, number_text, percent_text, render, size_text


def test_values_are_escaped(tmp_path):
    template = tmp_path / "page.html.j2"
    template.write_text('<p title="{{ name }}">{{ name }}</p>')
    assert render(template, name="<b> & \"'") == '<p title="&lt;b&gt; &amp; &#34;&#39;">&lt;b&gt; &amp; &#34;&#39;</p>'


def test_a_missing_value_raises(tmp_path):
    (tmp_path / "page.html.j2").write_text("{{ nmae }}")
    with pytest.raises(UndefinedError, match="nmae"):
        render(tmp_path / "page.html.j2", name="a")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1,234,567"), (1234.5, "1,234"), (0.123456, "0.1235"), (3.0, "3"), (math.nan, "")],
)
def test_numbers(value, text):
    assert number_text(value) == text


def test_units():
    assert [size_text(n) for n in (0, 1500, 2_500_000, 1_234_500_000_000)] == [
        *("0.0 kB", "1.5 kB", "2.5 MB", "1,234.5 GB")
    ]
    assert [percent_text(0.256), percent_text(0.256, 2), percent_text(math.inf)] == ["26%", "25.60%", ""]
    assert [duration_text(s) for s in (59.6, 36000 + 61, math.nan)] == ["0:01:00", "10:01:01", ""]
