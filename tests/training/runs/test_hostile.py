"""Files of a run and recipes of any content: read or refused with an InputError, in one line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.training import job, recipes
from imgtool.training.evaluation.error_analysis import METRICS
from imgtool.training.runs.curves import read_results
from imgtool.training.runs.report import write_report
from imgtool.training.runs.run import COLUMNS, SETTINGS, Run
from imgtool.wordnet.errors import CheckpointError, InputError
from imgtool.wordnet.graph.label_map import LabelMap

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
HEADER = ",".join(COLUMNS).encode()
CELLS = [
    b"1",
    b"2",
    b"-1",
    b"\xc2\xb2",
    b"9" * 5000,
    b"1e400",
    b"nan",
    b"inf",
    b"",
    b'"',
    b"\0",
    b"\xff",
    b"x" * 200_000,
]
VALID: dict[str, Any] = {
    "argv": ["imgtool"],
    "size": "n",
    "recipe": recipes.load("n").to_dict(),
    "data": "d",
    "labelmap": None,
    "fingerprint": "f",
    "seed": 0,
    "precision": "auto",
    "sync_bn": False,
    "versions": {},
}


def report_or_refusal(folder: Path) -> None:
    run = Run(folder, quiet=True)
    for use in (write_report, lambda _: run.epochs_in_results(), lambda _: run.forget_results_after(5)):
        try:
            use(folder)
        except InputError as error:
            assert "\n" not in str(error) and str(folder) in str(error)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_files_of_any_content(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = dict(VALID)
        content[data.draw(st.sampled_from(sorted(VALID)))] = data.draw(ANY_JSON)
        (folder / "run.json").write_text(json.dumps(content))
        (folder / METRICS).write_text(json.dumps(data.draw(ANY_JSON | st.dictionaries(st.just("hierarchy"), ANY_JSON))))
        cells = st.lists(st.sampled_from(CELLS), min_size=1, max_size=14).map(b",".join)
        rows = data.draw(st.lists(cells, max_size=4))
        (folder / "results.csv").write_bytes(
            b"\n".join([data.draw(st.sampled_from([HEADER, b"epoch", b"", b"\0"])), *rows])
        )
        (folder / "confusion.csv").write_bytes(b"\n".join(rows))
        report_or_refusal(folder)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"1", b"\xff", b"[" * 100_000, b'{"recipe": 5}', b"{}", b'{"recipe": {"epochs": "x"}}']
)
def test_run_json(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        write_report(tmp_path)
    with pytest.raises(CheckpointError):
        job.resumed(Run(tmp_path))


@pytest.mark.parametrize("key", sorted(VALID.keys() & SETTINGS.keys()))
def test_a_setting_of_another_type_is_named(key: str, tmp_path: Path) -> None:
    for value in (1.5, [1] if key != "argv" else 1, "a" if SETTINGS[key][0] is not str else 1):
        (tmp_path / "run.json").write_text(json.dumps(VALID | {key: value}))
        with pytest.raises(CheckpointError, match=key):
            Run(tmp_path).read_settings()


@pytest.mark.parametrize("cell", CELLS)
def test_epochs(cell: bytes, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_bytes(
        HEADER + b"\n" + cell + b",1,2,3\n" + cell + b",1" * (len(COLUMNS) + 3) + b"\n"
    )
    (tmp_path / "run.json").write_text(json.dumps(VALID))
    report_or_refusal(tmp_path)
    try:
        assert len(read_results(tmp_path / "results.csv")["epoch"]) <= 2
    except CheckpointError as error:
        assert "results.csv" in str(error)


RECIPES = ["", "[", "a = ", "epochs = 1e400", "epochs = " + "9" * 4000, "epochs = true", "imgsz = -1", "lr = inf"]
RECIPES += ["imgsz = 1000000000", "lr = nan", "lr = " + "9" * 400, "lr = 1979-05-27", "loss = 1", "progressive = 5"]
RECIPES += ["progressive = [[0.0, 1e9]]", "progressive = [[0.0, 999999999]]", f"progressive = [[{'9' * 400}, 64]]"]
RECIPES += ["progressive = [[]]", "x = " + "[" * 5000]


@pytest.mark.parametrize("text", RECIPES, ids=lambda text: text[:30])
def test_recipes(text: str, tmp_path: Path) -> None:
    key = text.partition(" ")[0]
    lines = [line for line in (recipes.FOLDER / "n.toml").read_text().splitlines() if not line.startswith(f"{key} =")]
    (tmp_path / "r.toml").write_text("\n".join([*lines, text] if text else []))
    with pytest.raises(InputError, match=r"r\.toml") as caught:
        recipes.load(tmp_path / "r.toml")
    assert len(str(caught.value)) < 1000
    (tmp_path / "r.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"r\.toml"):
        recipes.load(tmp_path / "r.toml")


@settings(max_examples=60, deadline=None)
@given(ANY_JSON | st.fixed_dictionaries({"targets": ANY_JSON, "dropped": ANY_JSON}))
def test_label_maps(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.json"
        path.write_text(json.dumps(content))
        try:
            LabelMap.load(path)
        except InputError as error:
            assert "map.json" in str(error)
