"""The options of `imgtool predict` and `imgtool val`, in this process."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from imgtool.cli import main
from imgtool.pipelines.dataset import Dataset

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def weights(scattered, drawn_data) -> Path:
    return scattered(Dataset(drawn_data).wnids)


@pytest.fixture
def images(draw_image, encoded, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("p/deep").mkdir(parents=True)
    for seed, name in enumerate(("p/a.jpg", "p/b.png", "p/deep/c.jpg")):
        Path(name).write_bytes(encoded(draw_image(80, 60, seed), "PNG" if name.endswith("png") else "JPEG"))
    return tmp_path


NUMBERS = {"probability", "probabilities"}


def run(weights: Path, *args: object, stdin: bytes | str | None = None) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, args), "--weights", str(weights)], input=stdin)


def assert_same(found: list[dict], expected: list[dict]) -> None:
    """Asserts equality, except for rounding of the probabilities: batches of other sizes sum in another order."""
    assert [without_numbers(row) for row in found] == [without_numbers(row) for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for name in NUMBERS & ours.keys():
            assert np.asarray(ours[name], float) == pytest.approx(np.asarray(theirs[name], float), rel=1e-4, abs=2e-6)


def without_numbers(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in NUMBERS}


def test_folders_patterns_and_urls_agree(weights, images):
    folder = run(weights, "p", "--json", "--topk", 3)
    lines = [json.loads(line) for line in folder.stdout.splitlines()]
    assert [line["path"] for line in lines] == ["p/a.jpg", "p/b.png", "p/deep/c.jpg"]
    assert all(len(line["superclasses"]) == 3 and all(line["superclasses"]) for line in lines)
    assert_same([json.loads(line) for line in run(weights, "p/**", "--json", "--topk", 3).stdout.splitlines()], lines)
    (one,) = [json.loads(line) for line in run(weights, "p/*.jpg", "--json", "--topk", 3).stdout.splitlines()]
    assert (one["path"], one["wnids"]) == ("p/a.jpg", lines[0]["wnids"])
    url = [json.loads(line) for line in run(weights, f"file://{images}/p", "--json").stdout.splitlines()]
    assert [line["wnids"][0] for line in url] == [line["wnids"][0] for line in lines]


def test_text_names_the_superclass(weights, images):
    shown = run(weights, "p/a.jpg", "--topk", 10).stdout.splitlines()
    assert shown[0] == "p/a.jpg" and len(shown) == 11
    assert any(line.endswith("zebra  [ungulate]") for line in shown)


def test_csv_to_a_file_and_to_standard_output(weights, images):
    result = run(weights, "p", "--csv", "out.csv", "--topk", 2, "--batch", 2, "--workers", 2)
    assert result.stdout == "3 images, out.csv\n"
    text = Path("out.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["path"], row["rank"]) for row in rows[:3]] == [("p/a.jpg", "1"), ("p/a.jpg", "2"), ("p/b.png", "1")]
    assert list(rows[0]) == ["path", "rank", "wnid", "name", "superclass", "probability"]
    shown = list(csv.DictReader(io.StringIO(run(weights, "p", "--csv", "-", "--topk", 2).stdout)))
    assert_same(shown, rows)


def test_standard_input_is_an_image_or_a_list(weights, images):
    data = Path("p/b.png").read_bytes()
    piped = run(weights, "-", "--json", stdin=data)
    known = json.loads(run(weights, "p/b.png", "--json").stdout)
    assert_same([json.loads(piped.stdout)], [known | {"path": "-"}])
    listed = run(weights, "--list", "-", "--json", stdin="p/b.png\n\np/a.jpg\r\nnowhere.jpg\ngone.jpg\n")
    assert [json.loads(line)["path"] for line in listed.stdout.splitlines()] == ["p/b.png", "p/a.jpg"]
    assert listed.exit_code == 2
    first, second, summary = listed.stderr.splitlines()
    assert "nowhere.jpg" in first and "gone.jpg" in second and "No such file" in first and "No such file" in second
    assert "2 of 4 images" in summary


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "IMAGES"),
        (("p", "--json", "--csv", "-"), "--csv"),
        (("-", "--list", "-"), "standard input"),
        (("p", "nowhere.jpg"), "nowhere.jpg"),
        (("*.gif",), "*.gif"),
        (("--list", "nowhere.txt"), "nowhere.txt: No such file"),
    ],
)
def test_wrong_arguments(weights, images, args, message):
    result = run(weights, *args)
    assert result.exit_code == 2 and message in result.stderr


def test_val_reports_the_classes_it_is_restricted_to(scattered, drawn_data, tmp_path):
    from imgtool import wordnet

    weights = scattered(wordnet.load().wnids)
    args = ["val", "--weights", str(weights), "--data", str(drawn_data)]
    shown = CliRunner().invoke(main, [*args, "--per-class", str(tmp_path / "c.csv")]).stdout
    assert re.search(r"restricted\b.*\b10\b.*\b1,000 classes", shown)
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 11
    found = json.loads(CliRunner().invoke(main, [*args, "--all-classes", "--json"]).stdout)
    assert found["classes"] == 1000
