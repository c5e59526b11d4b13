"""`imgtool bench inference` on small pictures: what it times is one model, and its JSON holds what it printed."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from imgtool.bench import inference, inference_peers
from imgtool.bench.inference_peers import OURS, THEIRS
from imgtool.pipelines.dataset import Dataset
from imgtool.training.classifier import Classifier
from imgtool.wordnet.errors import BenchError


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "SECONDS", 0)
    monkeypatch.setattr(inference, "REST", 0)


def test_ours_beside_ultralytics(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    kinds = f"{OURS}, {THEIRS}, openvino, torchscript, torch"
    args = ["--sizes", "n", "--batches", "1,2", "--imgsz", "64", "--rounds", "2", "--threads", "1"]
    shown = CliRunner().invoke(inference.main, [*args, "--runtimes", kinds, "--json", str(out)])
    assert shown.exit_code == 0, shown.output
    found = json.loads(out.read_text())
    assert [(row["size"], row["batch"]) for row in found["timings"]] == [("n", 1), ("n", 2)]
    for row in found["timings"]:
        assert set(row["milliseconds"]) == set(kinds.split(", "))
        assert all(len(values) == 2 and min(values) > 0 for values in row["milliseconds"].values())
    first = found["timings"][0]["milliseconds"]
    ratio = statistics.median(first[OURS]) / statistics.median(first[THEIRS])
    assert f"ours takes {ratio:.3f} of Ultralytics'" in shown.output
    assert found["versions"]["onnxruntime"] and found["settings"]["threads"] == 1


def test_another_model_is_noticed(tmp_path: Path) -> None:
    subject = Classifier(inference_peers.make_checkpoint("n", tmp_path, 64))
    kinds = [OURS, "torch"]
    runners = inference_peers.cpu_runners(subject, tmp_path, 1, 64, 1, kinds)
    inference_peers.agree(runners)
    with pytest.raises(BenchError, match="torch differs from onnx"):
        inference_peers.agree(runners | {"torch": lambda: torch.zeros(1, 1000)})


def test_int8_beside_float32(scattered: Callable[..., Path], drawn_data: Path, tmp_path: Path) -> None:
    weights, out = scattered(Dataset(drawn_data).wnids), tmp_path / "out.json"
    args = ["--int8", "--weights", weights, "--data", drawn_data, "--batches", "1", "--rounds", "1", "--json", out]
    shown = CliRunner().invoke(inference.main, list(map(str, args)))
    assert shown.exit_code == 0, shown.output
    found = json.loads(out.read_text())["int8"]
    assert found["calibrated_on"] == 80 and found["float32"]["images"] == found["int8"]["images"] == 20
    assert found["bytes"]["int8"] < 0.4 * found["bytes"]["float32"]
    assert "calibrated on 80 pictures: top-1" in shown.output
    assert CliRunner().invoke(inference.main, ["--int8"]).exit_code == 2
