"""`imgtool bench inference` on small images: it times one and the same model; the JSON has what is printed."""

import json
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
    monkeypatch.setattr(inference, "ROUND_SECONDS", 0)
    monkeypatch.setattr(inference, "PAUSE", 0)


def test_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Medians of the rounds: milliseconds for a single image, images/s for larger batches."""
    milliseconds = {OURS: [2.0, 9.0, 1.0], THEIRS: [4.0, 5.0, 2.0]}
    inference.show({"size": "n", "batch": 1, "milliseconds": milliseconds})
    inference.show({"size": "s", "batch": 8, "milliseconds": milliseconds})
    one, more = capsys.readouterr().out.splitlines()
    assert one.startswith(
        "n, batch  1: onnx 2.00 ms, ultralytics-onnx 4.00 ms, imgtool's takes 0.500 of the time of Ultralytics'"
    )
    assert more.startswith("s, batch  8: onnx 4,000 images/s, ultralytics-onnx 2,000 images/s, imgtool's takes 0.500")


def test_a_different_model_is_detected(tmp_path: Path) -> None:
    subject = Classifier(inference_peers.make_checkpoint("n", tmp_path, 64))
    kinds = [OURS, "torch"]
    runners = inference_peers.cpu_runners(subject, tmp_path, 1, 64, 1, kinds)
    inference_peers.check_same_output(runners)
    with pytest.raises(BenchError, match="torch differs from onnx"):
        inference_peers.check_same_output(runners | {"torch": lambda: torch.zeros(1, 1000)})


def test_int8_and_float32(scattered: Callable[..., Path], drawn_data: Path, tmp_path: Path) -> None:
    weights, out = scattered(Dataset(drawn_data).wnids), tmp_path / "out.json"
    args = ["--int8", "--weights", weights, "--data", drawn_data, "--batches", "1", "--rounds", "1", "--json", out]
    shown = CliRunner().invoke(inference.main, list(map(str, args)))
    assert shown.exit_code == 0, shown.output
    found = json.loads(out.read_text())["int8"]
    assert found["calibrated_on"] == 80 and found["float32"]["images"] == found["int8"]["images"] == 20
    assert found["bytes"]["int8"] < 0.4 * found["bytes"]["float32"]
    assert "80 images" in shown.output and "top-1" in shown.output
    assert CliRunner().invoke(inference.main, ["--int8"]).exit_code == 2
