"""Run directories: names, errors, results.csv and the log."""

import csv
import os
from pathlib import Path

import pytest

from imgtool.training.runs.run import COLUMNS, Run
from imgtool.wordnet.errors import CheckpointError, InputError


@pytest.fixture(autouse=True)
def fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_default_names_are_numbered() -> None:
    paths = [Run.create().path.as_posix() for _ in range(3)]
    assert paths == ["runs/train", "runs/train2", "runs/train3"]


def test_a_name_is_under_runs_and_a_path_is_unchanged(tmp_path: Path) -> None:
    assert Run.create("first").path == Path("runs/first")
    assert Run.create("here/second").path == Path("here/second")
    assert Run.create("./third").path == Path("third")
    assert Run.create(tmp_path / "fourth").path == tmp_path / "fourth"


def test_a_used_name_is_refused() -> None:
    Run.create("mine").say("hello")
    with pytest.raises(InputError, match=r"runs/mine is not empty.*--name.*--resume"):
        Run.create("mine")
    assert "hello" in Path("runs/mine/log.txt").read_text()
    Path("file").touch()
    with pytest.raises(InputError, match="is a file"):
        Run.create("./file")


def test_reopen() -> None:
    with pytest.raises(CheckpointError, match="no run to resume"):
        Run.reopen()
    for age, name in enumerate(("newer", "older")):
        run = Run.create(name)
        run.last.touch()
        os.utime(run.last, (10_000 - age, 10_000 - age))
    assert Run.reopen().path == Path("runs/newer")
    assert Run.reopen("older").path == Path("runs/older")
    assert Run.reopen("runs/older/weights/last.pt").path == Path("runs/older")
    with pytest.raises(CheckpointError, match="cannot resume runs/none"):
        Run.reopen("none")


def test_results_have_ultralytics_columns_first() -> None:
    run = Run.create()
    for epoch in (1, 2, 3):
        run.add_result({name: epoch if name == "epoch" else 0.5 for name in COLUMNS})
    header = run.results.read_text().splitlines()[0]
    assert header.startswith("epoch,time,train/loss,metrics/accuracy_top1,metrics/accuracy_top5,val/loss,lr/pg0,")
    run.forget_results_after(2)
    with open(run.results, newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_settings_round_trip_and_damaged_settings() -> None:
    run = Run.create()
    run.write_settings({"seed": 3, "data": "données"})
    assert run.read_settings() == {"seed": 3, "data": "données"}
    (run.path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read .*run\.json"):
        run.read_settings()


def test_lines_go_to_standard_error_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Run.create().say("loud")
    Run.create(quiet=True).say("soft")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "loud\n"
