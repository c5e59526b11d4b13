"""report.html, opened in headless Chromium: it shows what dataset.json says, and no name is executed as a script."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.report import write_report

EVIL_CLASS = "\"R&B\" <i>'x'"


@pytest.fixture(scope="module")
def folders(tmp_path_factory, draw_image, encoded) -> Path:
    """Classes that are not synsets, copies of an image, and a file that is not an image, with a script as its name."""
    root = tmp_path_factory.mktemp("report") / "mine"
    for number, name in enumerate(("cats", "dogs", "n02084071", EVIL_CLASS)):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for i in range(4):
            (folder / f"{i}.jpg").write_bytes(encoded(draw_image(120, 90, number)))
    (root / "train/cats/<script>document.title='broken'<&script>.jpg").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module", params=["beton", "wds"])
def prepared(request, drawn, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(drawn, out, Settings(max_side=100, format=request.param), workers=1)
    return out


def test_the_page_shows_the_data_set(browser, open_page, prepared):
    assert open_page(browser, prepared / "report.html") == []
    info = json.loads((prepared / "dataset.json").read_text())
    assert browser.title == f"{info['source']['name']}, prepared"
    rows = [
        row.text.split()
        for row in browser.find_elements("css selector", "table")[0].find_elements("css selector", "tbody tr")
    ]
    assert [row[:3] for row in rows] == [
        [name, str(split["samples"]), str(split["skipped"])] for name, split in info["splits"].items()
    ]
    for details in browser.find_elements("tag name", "details"):
        browser.execute_script("arguments[0].open = true", details)
    assert len(browser.find_elements("css selector", ".leaf")) == 10
    assert {leaf.text.split(" ", 1)[-1].split("8 ")[-1] for leaf in browser.find_elements("css selector", ".leaf")} == {
        "train, 2 val"
    }
    images = browser.find_elements("css selector", ".mosaic img")
    assert len(images) >= 10
    for image in images:
        assert browser.execute_script("return arguments[0].naturalWidth", image) == 96
        assert image.get_attribute("alt")
    assert len(browser.find_elements("css selector", "figure svg")) == 4


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_sticks_out(browser, open_page, prepared, width):
    open_page(browser, prepared / "report.html", width)
    wide, window = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window


def test_names_are_escaped(browser, open_page, folders, tmp_path):
    prepare(folders, tmp_path / "out", workers=1)
    assert open_page(browser, tmp_path / "out/report.html") == []
    assert browser.title == "mine, prepared"
    text = browser.find_element("tag name", "body").get_attribute("textContent")
    assert "<script>document.title='broken'<&script>" in text
    assert EVIL_CLASS in text and not browser.find_elements("css selector", ".leaf i:not(.bar)")
    images = browser.find_elements("css selector", ".mosaic img")
    assert EVIL_CLASS in {image.get_attribute("alt") for image in images}
    assert "not an image" in text and "1 skipped" in text
    assert "the same bytes as another image of the split" in text
    assert {"cats", "dogs", "dog"} <= {
        leaf.text.split(" ")[0] for leaf in browser.find_elements("css selector", ".leaf")
    }


def test_the_page_is_a_function_of_the_data(drawn_data, tmp_path):
    first = write_report(drawn_data, tmp_path / "a.html").read_bytes()
    assert first == write_report(drawn_data, tmp_path / "b.html").read_bytes()
    assert first == (drawn_data / "report.html").read_bytes()
    assert len(first) < 3_000_000 and str(tmp_path).encode() not in first
    assert not re.search(rb'(src|href)="(?!data:)', first), "the page needs another file"


def test_a_split_of_skipped_samples_only(tmp_path, draw_image, encoded):
    for split, data in (("train", b"no image"), ("val", encoded(draw_image(40, 30, 1)))):
        for name in "ab":
            (tmp_path / f"source/{split}/{name}").mkdir(parents=True)
            (tmp_path / f"source/{split}/{name}/{name}.jpg").write_bytes(data)
    prepare(tmp_path / "source", tmp_path / "out", workers=1)
    page = (tmp_path / "out/report.html").read_text()
    assert "<summary>2 skipped" in page and "train" in page


def test_a_long_list_of_skipped_images_is_cut(drawn_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(drawn_data, data)
    table = pq.read_table(data / "val.parquet")
    row = {**table.to_pylist()[0], "status": "skipped:empty", "position": None}
    more = pa.Table.from_pylist([{**row, "key": f"skip{i}"} for i in range(1200)], table.schema)
    pq.write_table(pa.concat_tables([table, more]), data / "val.parquet")
    page = write_report(data).read_text()
    assert "1,200 skipped; the first 1,000" in page
    assert "skip999<" in page and "skip1000<" not in page


def test_real_images_over_the_whole_hierarchy(browser, open_page, mini, tmp_path):
    prepare(mini, tmp_path / "out", Settings(max_side=200))
    assert open_page(browser, tmp_path / "out/report.html") == []
    assert len(browser.find_elements("css selector", ".leaf")) > 800
    assert len(browser.find_elements("css selector", ".mosaic")) >= 12
    assert (tmp_path / "out/report.html").stat().st_size < 3_000_000
