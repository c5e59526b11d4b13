"""A run's report, opened in headless Chromium: it shows what the run's files say, and no name runs as a script."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imgtool.training.evaluation.error_analysis import METRICS
from imgtool.training.evaluation.plots.confusion import ConfusionMatrix
from imgtool.training.evaluation.plots.mosaic import BatchMosaics, save_mosaic
from imgtool.training.recipes import load
from imgtool.training.runs.report import write_report
from imgtool.training.runs.run import COLUMNS, Run
from imgtool.wordnet.errors import CheckpointError

EVIL = "<script>document.title='broken'</script>"
NAMES = [EVIL, "\"quoted\" & 'so'", "cat"]


def make_run(path: Path, done: int, epochs: int = 20) -> Run:
    """Makes a run's directory with ``done`` epochs in results.csv."""
    run = Run.create(path, quiet=True)
    recipe = load("n").override(epochs=epochs).to_dict() | {"loss": EVIL}
    run.write_settings({"argv": ["imgtool", "train", EVIL], "size": "n", "recipe": recipe, "data": EVIL, "seed": 0})
    run.say(f"a line of {EVIL}")
    for epoch in range(1, done + 1):
        row = {name: 0.5 for name in COLUMNS} | {"metrics/accuracy_top1": min(epoch, 17) / 20}
        run.add_result(row | {"epoch": epoch, "time": 100.4 * epoch, "imgsz": 64 if epoch < 9 else 128})
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "<b>mine"
    run = make_run(path, 20)
    ConfusionMatrix(np.array([0, 0, 1, 2]), np.array([1, 1, 1, 0]), ["a", "b", "c"], NAMES).save(path)
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    save_mosaic(path / "mistakes.jpg", images, ["a"] * 4)
    for step in (1, 2, 3):
        BatchMosaics(path, NAMES, run.say)(0, step, images, torch.tensor([0, 1, 2, 0]))
    severity = {"value": None, "count": 0, "convention": EVIL}
    hierarchy = {"mistake_severity": severity, "depth_accuracy": {"value": [1.0, None], "convention": "by depth"}}
    metrics = {"top1": 0.25, "top5": 1.0, "loss": 1.25, "images": 4, "split": "val", "hierarchy": hierarchy}
    (path / METRICS).write_text(json.dumps(metrics))
    write_report(path)
    return path


def test_the_page_shows_the_run(browser: Any, open_page: Any, finished: Path) -> None:
    assert open_page(browser, finished / "report.html") == []
    assert browser.title == "<b>mine, trained"
    for details in browser.find_elements("css selector", "details"):
        browser.execute_script("arguments[0].open = true", details)
    shown = browser.find_element("tag name", "body").text
    assert "20 of 20: top-1 85.00%, top-5 50.00%" in shown  # 17 to 20 are equal; best.pt has the last one
    assert "0:33:28" in shown and "finished: 20 of 20 epochs" in shown and "not finished" not in shown
    assert [row.text.split()[0] for row in browser.find_elements("xpath", "//section[2]//tbody/tr")][-1] == "20"
    assert f"{EVIL} {NAMES[1]} 2 of 2" in shown
    assert f"imgtool train '{EVIL.replace(chr(39), chr(39) + chr(34) + chr(39) + chr(34) + chr(39))}'" in shown
    assert "mistake severity – " in shown and "depth accuracy 1.0000 – by depth" in shown
    images = browser.find_elements("tag name", "img")
    assert len(images) == 6  # curves, confusion matrix, mistakes, three batches
    for image in images:
        assert browser.execute_script("return arguments[0].naturalWidth", image) > 100
        assert image.get_attribute("alt")
    assert not re.search(r'(src|href)="(?!data:)', (finished / "report.html").read_text()), (
        "the page needs another file"
    )
    assert not browser.find_elements("tag name", "script") and not browser.find_elements("tag name", "b")


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_sticks_out(browser: Any, open_page: Any, finished: Path, width: int) -> None:
    open_page(browser, finished / "report.html", width)
    wide, window = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window


@pytest.mark.parametrize("done", [0, 3])
def test_a_run_in_progress(browser: Any, open_page: Any, tmp_path: Path, done: int) -> None:
    make_run(tmp_path / "run", done)
    page = write_report(tmp_path / "run", tmp_path / "page.html")
    assert page == tmp_path / "page.html" and not (tmp_path / "run" / "report.html").exists()
    assert open_page(browser, page) == []
    assert browser.title == "run, in training"
    shown = browser.find_element("tag name", "body").text
    assert f"not finished: {done} of 20 epochs" in shown
    assert ("No epoch" in shown) == (done == 0)
    assert "Confusion" not in shown and "mistakes" not in shown
    assert len(browser.find_elements("tag name", "img")) == (done > 0)


def test_a_directory_without_a_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="runs/nowhere: no such run"):
        write_report("nowhere")
    with pytest.raises(CheckpointError, match="cannot read"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(CheckpointError, match="lacks the key recipe"):
        write_report(tmp_path)
    make_run(tmp_path / "runs" / "mine", 1)
    with pytest.raises(CheckpointError, match="cannot write"):
        write_report("mine", tmp_path / "no" / "folder" / "page.html")
    (tmp_path / "runs" / "mine" / METRICS).write_text("{")
    (tmp_path / "runs" / "mine" / "confusion.csv").write_text("a,b\n1,2\n")
    assert "Confusion" not in write_report("mine").read_text()
