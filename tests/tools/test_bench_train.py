"""The training benchmark runs and reports its measurements; no time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from imgtool.bench import bench
from imgtool.bench.train_overhead import KINDS
from imgtool.bench.train_peers import read_curve, summary


def test_overhead(tmp_path: Path) -> None:
    file = tmp_path / "raw.json"
    options = ["--rounds", "2", "--steps", "2", "--batch", "4", "--imgsz", "32", "--json", str(file)]
    done = CliRunner().invoke(bench, ["train", "--only", "overhead", *options])
    assert done.exit_code == 0, done.output
    assert "the training loop reaches" in done.output
    result = json.loads(file.read_text())
    assert result["bench"] == "train" and result["machine"] and "torch" in result["versions"]
    assert set(result["overhead"]) == set(KINDS)
    assert all(len(rates) == 2 and min(rates) > 0 for rates in result["overhead"].values())
    assert "ultralytics" not in result and "torchvision" not in result


def test_images_are_required() -> None:
    done = CliRunner().invoke(bench, ["train", "--only", "torchvision"])
    assert done.exit_code == 2 and "--src" in done.output


def test_summary_of_a_curve(tmp_path: Path) -> None:
    """The median excludes the first epoch, which includes start-up; best and last top-1 are separate."""
    rows = [(1, 10.0, 2.0, 0.1), (2, 14.0, 1.5, 0.3), (3, 17.0, 1.2, 0.2), (4, 22.0, 1.1, 0.25)]
    names = "epoch,             time,train/loss,metrics/accuracy_top1"
    (tmp_path / "results.csv").write_text("\n".join([names, *(",".join(map(str, row)) for row in rows)]) + "\n")
    curve = read_curve(tmp_path / "results.csv")
    assert summary(curve) == {"best": 0.3, "last": 0.25, "epoch_seconds": 4.0}
    assert summary(curve[:1])["epoch_seconds"] == pytest.approx(10.0)
