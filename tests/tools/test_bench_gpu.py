"""The GPU benchmark, rehearsed: every part runs on the CPU and keeps its measurements; no figure is asserted."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from imgtool.bench import bench
from imgtool.bench.gpu import model, others, process, trainings
from imgtool.bench.gpu.results import OutOfTime
from imgtool.bench.gpu.table import table

MODEL_NAMES = ["n 32 4 eager", "n 32 2 eager"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, here and in child processes: several would wait for each other while other tests run."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gpu(tmp_path: Path):
    """gpu(arguments) rehearses with files in tmp_path."""

    def call(*arguments: str) -> Result:
        paths = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
        return CliRunner().invoke(bench, ["gpu", "--device", "cpu", "--commit", "abc", *paths, *arguments])

    return call


@pytest.fixture
def results(tmp_path: Path):
    """results(part) reads the part's file."""
    return lambda part: json.loads((tmp_path / "out" / f"gpu-{part}.json").read_text())


def test_models_and_loaders(gpu, results, drawn: Path) -> None:
    done = gpu("--only", "model", "--only", "loaders", "--src", str(drawn))
    assert done.exit_code == 0, done.output
    assert "rehearsal on the CPU" in done.output and "| rehearsal |" in done.output
    assert "| met |" not in done.output and "| missed |" not in done.output
    assert "tests, train, inference, accuracy" in done.output  # not measured yet
    for part in ("model", "loaders"):
        content = results(part)
        assert content["complete"] and content["rehearsal"] and content["device"] == "cpu (a rehearsal)"
        assert content["date"] and content["machine"] and content["versions"]["torch"] == torch.__version__
        for one in content["measured"].values():
            assert len(one["rates"]) == 2 and min(one["rates"]) > 0
            assert one["commit"] == "abc" and one["date"]
    models, loaders = results("model")["measured"], results("loaders")["measured"]
    assert list(models) == MODEL_NAMES
    assert models["n 32 4 eager"]["kernels"][0]["ms"] > 0  # a CPU is far below the estimate
    assert {f"native {side} {threads}" for side in (48, 64) for threads in (1, 2)} <= set(loaders)
    assert loaders["native 48 1"]["data"].startswith("ILSVRC2012-")


def test_trainings(gpu, results, drawn: Path, tmp_path: Path) -> None:
    done = gpu("--only", "train", "--only", "accuracy", "--tiny", str(drawn))  # without --src, its images are synthetic
    assert done.exit_code == 0, done.output
    one = results("train")["measured"]["n 32"]
    assert one["data"].startswith("drawn-") and one["batch"] == 8 and one["accumulate"] == 1
    assert len(one["rates"]) == 1 and 0 <= one["data_wait"] <= 1 and one["bound"] in ("loader", "model")
    assert "imgsz = 32\nprogressive = []" in (tmp_path / "work" / "train" / "n.toml").read_text()
    one = results("accuracy")["measured"]["n 64"]
    assert one["epochs"] == one["of"] == len(one["rates"]) == 2 and one["hours"] > 0
    assert len(trainings.read_results(tmp_path / "out" / "gpu-accuracy.csv")) == 2
    assert (tmp_path / "out" / "gpu-accuracy.png").stat().st_size > 1000
    assert "all 2 epochs are done" in gpu("--only", "accuracy", "--tiny", str(drawn)).output


def test_an_interrupted_part_keeps_its_measurements_and_continues(gpu, results, monkeypatch) -> None:
    calls = []

    def rates(_settings: Any, _made: Any, mode: str) -> dict[str, Any]:
        calls.append(mode)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"size": "n", "image_size": 32, "batch": 4, "mode": mode, "rates": [1.0], "mfu": None}

    monkeypatch.setattr(model, "_rates", rates)
    assert gpu("--only", "model").exit_code != 0
    assert list(results("model")["measured"]) == MODEL_NAMES[:1] and not results("model")["complete"]
    done = gpu("--only", "model")
    assert "n 32 4 eager: already measured at commit abc" in done.output
    assert len(calls) == 3 and list(results("model")["measured"]) == MODEL_NAMES and results("model")["complete"]
    gpu("--only", "model", "--again")
    assert len(calls) == 5


def test_failures_are_reported_and_the_rest_is_measured(gpu, results, monkeypatch) -> None:
    errors = [torch.OutOfMemoryError("all of it"), RuntimeError("a |\nbad kernel")]
    monkeypatch.setattr(model, "_rates", lambda *_: (_ for _ in ()).throw(errors.pop(0)))
    done = gpu("--only", "model")
    assert done.exit_code == 1 and "n 32 2 eager: RuntimeError: a | bad kernel" in done.output
    assert "| model: n 32 4 eager | out of memory | | failed | |" in done.output
    assert [one["failed"] for one in results("model")["measured"].values()] == [
        "out of memory",
        "RuntimeError: a | bad kernel",
    ]
    monkeypatch.setattr(
        model,
        "_rates",
        lambda *_: {"size": "n", "image_size": 32, "batch": 2, "mode": "eager", "rates": [1.0], "mfu": None},
    )
    assert gpu("--only", "model").exit_code == 0
    assert "failed" in results("model")["measured"]["n 32 4 eager"], "out of memory is not tried again"
    assert "failed" not in results("model")["measured"]["n 32 2 eager"]


def test_the_time_limit(gpu, results) -> None:
    done = gpu("--only", "train", "--limit-seconds", "0")
    assert done.exit_code == 0 and "time limit reached" in done.output
    assert results("train")["measured"] == {} and not results("train")["complete"]


def test_accuracy_resumes_from_call_to_call(gpu, results, drawn: Path, tmp_path: Path, monkeypatch) -> None:
    home, commands = tmp_path / "work" / "tiny-n-2-cpu", []
    header = "epoch,time,metrics/accuracy_top1,metrics/accuracy_top5,images_per_second\n"

    def run(command: list[str], *_: Any) -> int:
        commands.append(command)
        (home / "weights").mkdir(parents=True, exist_ok=True)
        (home / "weights" / "last.pt").touch()
        rows = ["1,3600,0.25,0.5,100\n", "2,7200,0.125,0.5,100\n"][: len(commands)]
        (home / "results.csv").write_text(header + "".join(rows))
        if len(commands) == 1:
            raise OutOfTime
        return 0

    monkeypatch.setattr(trainings, "run", run)
    done = gpu("--only", "accuracy", "--tiny", str(drawn))
    assert "time limit reached" in done.output and "1 of 2 epochs" in done.output
    assert results("accuracy")["measured"]["n 64"]["hours"] == 1
    done = gpu("--only", "accuracy", "--tiny", str(drawn))
    assert "--resume" not in commands[0] and "--resume" in commands[1] and "--epochs" not in commands[1]
    one = results("accuracy")["measured"]["n 64"]
    assert (one["epochs"], one["hours"], one["top1"], one["last_top1"]) == (2, 2, 0.25, 0.125)
    assert "top-1 25.00%, top-5 50.00%, 2.00 h" in done.output


def test_inference_runs_the_other_benchmark(gpu, results, tmp_path: Path, monkeypatch) -> None:
    def run(command: list[str], *_: Any) -> int:
        assert {"--device", "--sizes", "--imgsz", "--rounds"} <= set(command)
        rounds = {"torch": [3.0, 4.0, 2.0], "cuda-graph": [0.5, 0.25, 1.0]}
        timings = [{"size": "n", "batch": batch, "milliseconds": rounds} for batch in (1, 32)]
        Path(command[command.index("--json") + 1]).write_text(json.dumps({"timings": timings}))
        return 0

    monkeypatch.setattr(others, "run", run)
    lines = gpu("--only", "inference").output.splitlines()
    assert "| inference of n, batch 1 | cuda-graph 0.50 ms; torch 3.00 ms |  |  | 3 |" in lines
    assert "| inference of n, batch 32 | cuda-graph 64,000 images/s; torch 10,667 images/s |  |  | 3 |" in lines
    assert results("inference")["measured"]["n"]["result"]["timings"][1]["batch"] == 32


def test_a_child_gets_sigterm(tmp_path: Path) -> None:
    script = f'trap "echo saved > {tmp_path}/saved; exit 143" TERM; echo started; while :; do sleep 0.05; done'
    with pytest.raises(OutOfTime):
        process.run(["sh", "-c", script], 1.5, tmp_path / "log")
    assert (tmp_path / "saved").read_text() == "saved\n" and (tmp_path / "log").read_text() == "started\n"
    assert process.run([sys.executable, "-c", "raise SystemExit(3)"], 60, tmp_path / "log") == 3
    with pytest.raises(OutOfTime):
        process.run(["false"], 0, tmp_path / "log")


def test_outcomes_of_pytest(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    cases = (
        '<testcase classname="tests.gpu.test_a" name="one"/>'
        '<testcase classname="tests.gpu.test_a" name="two"><failure message="assert 1 ==\n 2">long</failure></testcase>'
        '<testcase classname="tests.gpu.test_b" name="three"><skipped message="no DALI"/></testcase>'
    )
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    found = others.outcomes(report)
    assert found == {"passed": 1, "failures": {"test_a::two": "assert 1 == 2"}, "skipped": {"test_b::three": "no DALI"}}
    row = others.test_rows({"tests/gpu": found})[0]
    assert row.figure == "1 passed, 1 failed, 1 skipped" and row.met is False


def write(folder: Path, part: str, measured: dict[str, Any], **changes: Any) -> None:
    content = {"bench": "gpu", "part": part, "complete": True, "rehearsal": False, "device": "NVIDIA H100 80GB HBM3"}
    content |= {"driver": "580.1", "cuda": "13.0", "machine": "16 cores", "versions": {"torch": "2.14"}}
    folder.mkdir(exist_ok=True)
    file = folder / f"gpu-{part}.json"
    file.write_text(json.dumps(content | {"absent": {}, "measured": measured} | changes))


def step(mode: str, *rates: float) -> dict[str, Any]:
    content = {"size": "n", "image_size": 224, "batch": 512, "mode": mode, "mfu": 0.08, "memory_gb": 12.0}
    return {**content, "rates": list(rates)}


def test_table_of_a_gpu(tmp_path: Path) -> None:
    measured = {"n 224 512 eager": step("eager", 3e4, 3.1e4, 2e4), "n 224 512 compile": step("compile", 5e4, 6e4, 4e4)}
    write(tmp_path, "model", measured)
    train = {"size": "n", "image_size": 224, "batch": 1024, "rates": [14000.0, 14500.0], "data_wait": 0.3}
    write(tmp_path, "train", {"n 224": {**train, "gpu_percent": 61.2, "bound": "loader"}}, complete=False)
    done = CliRunner().invoke(bench, ["gpu", "--table", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "NVIDIA H100 80GB HBM3, driver 580.1, CUDA 13.0, torch 2.14; 16 cores"
    assert (
        "| step of n at 224, batch 512, compile | 50,000 images/s, MFU 8.0%, 12.0 GB; eager 30,000 | "
        "46,000, half of the roofline estimate | met | 3 |" in lines
    )
    assert (
        "| imgtool train, n at 224, batch 1024 | 14,250 images/s, data wait 30%, GPU busy 61 %: limited by the loader "
        "| 15,000 | missed | 2 |" in lines
    )
    assert lines[-1] == "not measured yet: tests, loaders, train (incomplete), inference, accuracy"


def test_a_rehearsal_never_replaces_figures_of_a_gpu(gpu, tmp_path: Path) -> None:
    write(tmp_path / "out", "model", {"n 224 512 eager": step("eager", 3e4)})
    before = (tmp_path / "out" / "gpu-model.json").read_bytes()
    done = gpu("--only", "model")
    assert done.exit_code != 0 and "has measurements of NVIDIA H100 80GB HBM3" in str(done.exception)
    assert (tmp_path / "out" / "gpu-model.json").read_bytes() == before


def test_errors(gpu, tmp_path: Path, monkeypatch) -> None:
    done = gpu("--only", "accuracy")
    assert done.exit_code == 2 and "--tiny" in done.output
    assert gpu("--sizes", "n,q").exit_code == 2 and gpu("--batches", "0").exit_code == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(bench, ["gpu", "--only", "model"])
    assert done.exit_code == 2 and "--device cpu" in done.output
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "gpu-model.json").write_text("[]")
    assert "not written by imgtool bench gpu" in str(gpu("--only", "model").exception)
    assert table(tmp_path / "nowhere", [("model", model.rows)]) == "not measured yet: model"
