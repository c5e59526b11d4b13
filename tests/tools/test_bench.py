"""Every benchmark completes at its smallest size, with all peers that are installed; no figure is asserted."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from imgtool.bench import CLAIMS, loader, wordnet
from imgtool.cli import main
from imgtool.pipelines.loaders import missing

WORDNET = Path("/usr/share/wordnet/data.noun")


def bench(*arguments: object, cwd: Path) -> str:
    """Runs `imgtool bench` and returns its output. Its processes use one thread, because tests run in parallel."""
    command = [sys.executable, "-m", "imgtool", "bench", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "unexpected" not in output and "\nTraceback" not in output, output
    assert "a rehearsal: its figures mean nothing" in output
    return output


def figures(name: str, *arguments: object, cwd: Path) -> Any:
    """Rehearses a benchmark and returns its raw numbers."""
    file = cwd / f"{name}.json"
    bench(name, "--rehearse", *arguments, "--json", file, cwd=cwd)
    found = json.loads(file.read_text())
    assert found["bench"] == name and found["rehearsal"] is True and found["machine"]
    return found


def present(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


def test_every_benchmark_has_a_test() -> None:
    assert {f"test_{name}" for name in CLAIMS} <= set(globals())


def test_learning(tmp_path: Path) -> None:
    found = figures("learning", cwd=tmp_path)
    assert (found["classes"], found["train"], found["val"]) == (10, 40, 10)
    assert len(found["curve"]) == 1 and found["total_seconds"] > found["prepare_seconds"] > 0


def test_loader(tmp_path: Path) -> None:
    found = figures("loader", "--plot", "rates.png", cwd=tmp_path)
    peers = {"torch"}
    peers |= {backend for backend in ("ffcv", "dali") if not missing(backend)}
    peers |= {"ultralytics"} if present("ultralytics") else set()
    ours = {"native", "native jpeg-indexed", "native raw", "entropy jpeg", "entropy jpeg-indexed"}
    assert set(found["rates"]) == {f"{kind}|{side}|1" for kind in peers | ours for side in (500, 400)}
    assert all(len(rates) == 1 and rates[0] > 0 for rates in found["rates"].values())
    assert found["images"] == 40 and (tmp_path / "rates.png").stat().st_size > 1000


def test_loader_without_one_thread(capsys: pytest.CaptureFixture[str]) -> None:
    """The bound is measured on one thread, where there is nothing to compare it with."""
    rates = {"native|500|2": [30.0], "torch|500|2": [10.0], "entropy jpeg|500|1": [40.0]}
    loader.show({"rates": rates, "first_batch_seconds": {"native|500|2": [0.5, 0.25]}})
    bound, native, torch = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines())
    assert bound == "longer side 500, 1 thread entropy jpeg 40 images/s"
    assert native == "longer side 500, 2 threads native 30 images/s set-up and first batch: 0.75 s"
    assert torch == "longer side 500, 2 threads torch 10 images/s native is 3.00 x as fast"


def test_loader_with_a_prepared_data_set(drawn_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    output = bench("loader", "--rehearse", "--data", drawn_data, "--json", file, cwd=tmp_path)
    assert "the bottleneck is" in output
    found = json.loads(file.read_text())
    assert min(found["read"], found["load"], found["step"]) > 0


def test_prepare(tmp_path: Path) -> None:
    found = figures("prepare", cwd=tmp_path)
    kinds = ["jpeg", "fit"] if missing("ffcv") else ["ffcv", "jpeg", "fit"]
    expected = {f"{kind} {side} {workers}" for kind in kinds for side in (500, 400) for workers in (1, 2)}
    assert set(found["seconds"]) == expected | {f"{kind} {side} 1" for kind in ("rgb", "own") for side in (500, 400)}
    assert all(len(took) == 1 and took[0] > 0 for took in found["seconds"].values())
    assert found["images"] == 40 and bool(found["peer"]) == (not missing("ffcv"))


def test_prepare_from_a_slow_source(tmp_path: Path) -> None:
    found = figures("prepare", "--slow-source", cwd=tmp_path)["slow_source"]
    rows = {(row["source"], row["order"]): row for row in found["reading"]}
    assert set(rows) == {(source, order) for source in ("tar", "parquet") for order in ("image by image", "in runs")}
    assert rows["tar", "image by image"]["reads"] == 1
    for row in rows.values():
        assert 0 < row["seeks"] <= row["reads"] and row["disk_seconds"] > 0 and row["store_seconds"] > 0
    for source in ("tar", "parquet"):
        assert rows[source, "in runs"]["reads"] < rows[source, "image by image"]["reads"]


def test_stores(tmp_path: Path) -> None:
    found = figures("stores", cwd=tmp_path)
    assert set(found["rates"]) == set(found["mean_bytes"]) and len(found["rates"]) == 8
    assert all(len(rates) == 1 and rates[0] > 0 for rates in found["rates"].values())


INSTALLED = [
    kind
    for kind, modules in {
        "onnx": ("onnx", "onnxscript", "onnxruntime"),
        "ultralytics-onnx": ("onnx", "onnxscript", "onnxruntime", "ultralytics"),
        "openvino": ("onnx", "onnxscript", "openvino"),
        "torchscript": (),
        "torch": (),
    }.items()
    if present(*modules)
]


def check_inference(found: dict[str, Any], kinds: list[str]) -> None:
    (row,) = found["timings"]
    assert (row["size"], row["batch"]) == ("n", 2)
    assert list(row["milliseconds"]) == kinds
    assert all(len(took) == 1 and took[0] > 0 for took in row["milliseconds"].values())


def test_inference(tmp_path: Path) -> None:
    found = figures("inference", "--runtimes", ",".join(INSTALLED), cwd=tmp_path)
    check_inference(found, INSTALLED)
    assert found["versions"]["torch"] and found["settings"] == {"imgsz": 32, "threads": 1, "rounds": 1}


@pytest.mark.slow
def test_inference_in_every_runtime(tmp_path: Path) -> None:
    """Includes torch.compile, which takes half a minute."""
    check_inference(figures("inference", cwd=tmp_path), [*INSTALLED, "torch-compile"])


def check_train(found: dict[str, Any], pairs: dict[str, tuple[str, str]]) -> None:
    assert found["images"] == {"train": 40, "val": 10}
    for part, pair in pairs.items():
        assert [run["who"] for run in found[part]["runs"]] == list(pair)
        assert all(len(run["curve"]) == 1 and run["epoch_seconds"] > 0 for run in found[part]["runs"])


def test_train(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    found = figures("train", "--only", "ultralytics", "--plot", "curve.svg", cwd=tmp_path)
    check_train(found, {"ultralytics": ("ours", "ultralytics")})
    assert (tmp_path / "curve.svg").read_text().count("<svg") == 1


@pytest.mark.slow
def test_train_in_every_part(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    found = figures("train", cwd=tmp_path)
    check_train(found, {"ultralytics": ("ours", "ultralytics"), "torchvision": ("ours-resnet18", "torchvision")})
    assert all(rates[0] > 0 for rates in found["overhead"].values())


@pytest.mark.skipif(not WORDNET.exists(), reason=f"{WORDNET} is missing: install Debian's wordnet-base")
def test_wordnet(tmp_path: Path) -> None:
    pytest.importorskip("nltk")
    found = figures("wordnet", cwd=tmp_path)
    assert found["nltk_pairs"] == 30 and found["rounds"] == len(found["raw"]["ours"]) == 1
    assert all(row["ours"] > 0 and row["nltk"] > 0 for row in found["rows"].values())
    assert len(wordnet.table(found).splitlines()) == 2 + len(wordnet.MEASUREMENTS)


def test_gpu(tmp_path: Path) -> None:
    output = bench("gpu", "--rehearse", "--only", "model", cwd=tmp_path)
    assert "not measured yet: tests, loaders, train, inference, accuracy" in output
    found = json.loads((tmp_path / "build/gpu/rehearsal/gpu-model.json").read_text())
    assert found["complete"] and found["rehearsal"] and len(found["measured"]) == 2


@pytest.mark.slow
def test_gpu_in_every_part(tmp_path: Path) -> None:
    output = bench("gpu", "--rehearse", cwd=tmp_path)
    assert "not measured yet" not in output and "failed |" not in output.replace(" 0 failed", "")


WRONG = {
    "inference --runtimes onnx,onnx": "'onnx' occurs twice",
    "inference --runtimes onnx;torch": "'onnx;torch' is not one of",
    "inference --runtimes cuda-graph": "cuda-graph does not run on cpu; choose from onnx",
    "inference --sizes n,q": "'q' is not one of",
    "inference --sizes n,n": "'n' occurs twice",
    "inference --sizes ,": "',' has an empty value",
    "loader --rehearse --threads 1,": "'1,' has an empty value",
    "loader --data . --seconds nan": "nan is not a finite number",
    "loader --data . --seconds inf": "inf is not a finite number",
    "wordnet --wordnet nowhere": "'nowhere' does not exist",
    "inference --batches 0": "0 is not in the range",
    "inference --batches 1,x": "'x' is not a valid integer",
    "inference --int8": "--int8 needs --weights and --data",
    "inference --data .": "need --int8",
    "inference --int8 --weights . --data . --runtimes torch": "do not give --runtimes",
    "inference --json nowhere/a.json": "nowhere: no such folder",
    "learning": "Missing option '--src'",
    "learning --src nowhere": "nowhere: no such file or folder",
    "learning --src . --epochs 0": "0 is not in the range",
    "loader": "give either --src (the claim) or --data",
    "loader --src . --data .": "give either --src (the claim) or --data",
    "loader --src . --threads 1,1": "1 occurs twice",
    "loader --src . --plot a.txt": "must end in one of .png, .svg, .pdf",
    "loader --data . --plot a.png": "use it with --src",
    "loader --rehearse --batch 8": "40 samples are 5 batches of 8, but more than 6 are needed",
    "prepare --src nowhere": "nowhere: no such file or folder",
    "prepare --src . --repeat 0": "0 is not in the range",
    "stores --rehearse --batch 8": "40 samples are 5 batches of 8, but more than 6 are needed",
    "train": "give --src, the images to train on",
    "train --only overhead --plot a.png": "these options run none",
    "train --only overhead --limit -1": "-1 is not in the range",
    "wordnet --sample 0": "0 is not in the range",
    "gpu --device cpu --sizes n,q": "'q' is not one of",
    "gpu --device cpu --batches 1,1": "1 occurs twice",
    "gpu --device cpu --samples 1": "--samples must be at least 4",
    "gpu --device cpu --tiny nowhere": "nowhere: no such file or folder",
    "gpu --device cpu --only accuracy": "give --tiny",
    "gpu --rehearse --device q": "device",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_option_is_refused(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["bench", *arguments.split()])
    assert done.exit_code == 2, done.output
    assert WRONG[arguments] in done.output and "unexpected" not in done.output
    assert not any(tmp_path.iterdir()), "nothing has been started"


def test_a_source_without_a_split(drawn: Path, tmp_path: Path) -> None:
    for split, lacking in (("train", "val"), ("val", "train")):
        (tmp_path / split).mkdir()
        for name in (f"ILSVRC2012_img_{split}.tar", "ILSVRC2012_devkit_t12.tar.gz"):
            shutil.copy(drawn / name, tmp_path / split)
        done = CliRunner().invoke(main, ["bench", "train", "--src", str(tmp_path / split)])
        assert done.exit_code == 2 and f"no images of split {lacking}" in done.output, done.output
    for name in ("prepare", "stores", "loader"):
        done = CliRunner().invoke(main, ["bench", name, "--src", str(tmp_path / "val")])
        assert done.exit_code == 2 and "no training images" in done.output, done.output


def test_every_benchmark_has_a_rehearsal() -> None:
    group = main.commands["bench"]
    assert isinstance(group, click.Group)
    for name in CLAIMS:
        command = group.get_command(click.Context(group), name)
        assert command and any(parameter.name == "rehearse" for parameter in command.params)
