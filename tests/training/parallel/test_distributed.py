"""Several processes in one training, with gloo on the CPU: the loss curve of one process, exact metrics, restarts."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imgtool.training.checkpoints import checkpoint
from imgtool.training.classifier import Classifier
from imgtool.training.engine.loop import SIGNAL_CHECK_STEPS
from imgtool.training.parallel.launch import RESTARTS

COMMON = ["--imgsz", "32", "--epochs", "2", "--batch", "12", "--device", "cpu", "--workers", "1", "--seed", "5"]
FAST = ["--no-plots"]  # plots take longer to draw than such nets to train


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with a learning rate so low that rounding errors do not grow over the run."""
    from imgtool.training import recipes

    path = tmp_path_factory.mktemp("recipe") / "calm.toml"
    text = (recipes.FOLDER / "n.toml").read_text().replace("lr = 0.5 ", "lr = 0.02 ")
    path.write_text(text)
    return path


# Python's start-up hook, which runs in every process of a training and calls act(n) before the n-th step.
AT_EACH_STEP = """
import itertools, os, signal, sys, threading

def act(n):
    ACT

if "train" in sys.orig_argv and ("RANK" in os.environ or "--gpus" not in sys.orig_argv):
    from imgtool.training.engine import signals
    from imgtool.training.engine import step
    count, real, noted = itertools.count(1), step.Step.__call__, threading.Event()

    def called(*args):
        act(next(count))
        return real(*args)

    def record(self, number, frame):
        noted.set()
        return real_record(self, number, frame)

    step.Step.__call__ = called
    real_record, signals.DeferredSignals._record = signals.DeferredSignals._record, record
"""
STEPS = 6  # per epoch: 80 images in batches of 12


@pytest.fixture
def at_each_step(tmp_path: Path) -> Callable[[str], Path]:
    """at_each_step(source of act's body): a folder whose hook `start` adds to its trainings."""

    def make(act: str) -> Path:
        folder = tmp_path / "hook"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(AT_EACH_STEP.replace("ACT", act))
        return folder

    return make


def start(data: Path, run: Path, *options: str, hook: Path | None = None) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "imgtool", "train", "--data", str(data), "--name", str(run), *COMMON, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if hook:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(hook), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=environment)


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def alone(drawn_data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a single process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    options: dict[str, Any] = {"imgsz": 32, "epochs": 2, "batch": 12, "device": "cpu", "seed": 5}
    Classifier("n").train(drawn_data, name=run, recipe=recipe, quiet=True, **options)
    return run


def assert_same_curve(run: Path, alone: Path, said: str, processes: int) -> None:
    """The run of several processes has the loss curve of the single one, and only one process logs."""
    assert f"batch 12 ({processes} processes × {12 // processes}), peak lr 0.0009375" in said
    for ours, theirs in zip(rows(run), rows(alone), strict=True):
        for column in ("train/loss", "val/loss", "lr/pg0"):
            assert float(ours[column]) == pytest.approx(float(theirs[column]), rel=1e-3), column
        for column in ("metrics/accuracy_top1", "metrics/accuracy_top5"):  # of 20 images, each counted once
            assert abs(float(ours[column]) - float(theirs[column])) < 0.06
    assert said.count("epoch 2/2") == 1, "only one process logs"
    assert "Warning" not in said, said  # such as PyTorch's deprecations
    ours, theirs = (checkpoint.load(r / "weights" / "last.pt") for r in (run, alone))
    assert len(ours["resume"]["rng"]) == processes
    for key, weight in theirs["ema"].items():
        torch.testing.assert_close(ours["ema"][key], weight, rtol=0.02, atol=2e-3, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_have_the_loss_curve_of_one(
    drawn_data: Path, recipe: Path, alone: Path, tmp_path: Path, processes: int
) -> None:
    run = tmp_path / "run"
    process = start(drawn_data, run, "--recipe", str(recipe), "--gpus", str(processes), "--sync-bn")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert_same_curve(run, alone, said, processes)


def test_after_a_killed_process_the_loss_curve_is_that_of_one_process(
    drawn_data: Path, recipe: Path, alone: Path, tmp_path: Path, at_each_step: Callable[[str], Path]
) -> None:
    """The second of three processes is killed in the third step of the second epoch. The 20 validation images are not
    divisible by three."""
    hook = at_each_step(
        f"""if (os.environ["RANK"], os.environ["{RESTARTS}"], n) == ("1", "0", {STEPS + 3}):
        os.kill(os.getpid(), signal.SIGKILL)"""
    )
    run = tmp_path / "run"
    options = ["--recipe", str(recipe), "--gpus", "3", "--sync-bn", "--save-steps", "1", "--restarts", "1", *FAST]
    process = start(drawn_data, run, *options, hook=hook)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "process 1 died (killed by SIGKILL)" in said and "resuming after epoch 1" in said
    assert [row["epoch"] for row in rows(run)] == ["1", "2"]
    assert_same_curve(run, alone, said, 3)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_resume_continues(
    drawn_data: Path, recipe: Path, tmp_path: Path, processes: int, at_each_step: Callable[[str], Path]
) -> None:
    """SIGTERM to the process that the user started, in the third step of the second epoch."""
    hook = at_each_step(
        f"""if (os.environ.get("RANK", "0"), n) == ("0", {STEPS + 3}):
        os.kill(os.getppid() if "RANK" in os.environ else os.getpid(), signal.SIGTERM)
        assert noted.wait(100), "SIGTERM did not come" """
    )
    run = tmp_path / "run"
    more = ["--gpus", str(processes)] if processes > 1 else []
    process = start(drawn_data, run, "--recipe", str(recipe), "--epochs", "40", *more, *FAST, hook=hook)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 143, said
    assert "Traceback" not in said
    # one process stops after the step; several compare signals every SIGNAL_CHECK_STEPS steps and after each epoch
    assert SIGNAL_CHECK_STEPS > STEPS
    done = len(rows(run))
    assert done == (1 if processes == 1 else 2)
    content = checkpoint.load(run / "weights" / "last.pt")
    assert content["epoch"] == done
    meter = content["resume"]["meters"][0]
    assert content["resume"]["loader"]["batch"] == (meter["steps"] if meter else 0) == (3 if processes == 1 else 0)
    shortened = {**content, "recipe": {**content["recipe"], "epochs": done + 1}}  # one more epoch is enough
    checkpoint.save(run / "weights" / "last.pt", {k: v for k, v in shortened.items() if k not in ("format", "imgtool")})
    Classifier("n").train(name=run, resume=True, device="cpu", quiet=True)
    assert [int(row["epoch"]) for row in rows(run)] == list(range(1, done + 2))


def test_wrong_input_is_not_retried(tmp_path: Path) -> None:
    process = start(tmp_path / "nothing", tmp_path / "run", "--gpus", "2")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "no data set here" in said and " died (" not in said and "Traceback" not in said


def test_a_batch_that_cannot_be_divided(drawn_data: Path, tmp_path: Path) -> None:
    from imgtool.training import recipes
    from imgtool.training.job import Job
    from imgtool.training.parallel.distributed import World
    from imgtool.wordnet.errors import InputError

    job: Any = Job(recipes.load("n").override(batch=12, accumulate=2), None, 0, None)  # type: ignore[arg-type]
    assert job.loader_batch(World(0, 3)) == 2
    assert job.batch_note(World(0, 3)) == "batch 12 (3 processes × 2 micro-batches × 2), peak lr 0.0234375"
    with pytest.raises(InputError, match=r"batch 12 .* 4 processes × 2 micro-batches: .* multiple of 8"):
        job.loader_batch(World(0, 4))


def test_more_gpus_than_there_are(drawn_data: Path, tmp_path: Path) -> None:
    from imgtool.training.parallel.launch import launch
    from imgtool.wordnet.errors import InputError

    with pytest.raises(InputError, match=r"--gpus 99: torch finds \d+ CUDA GPUs"):
        launch(["train"], 99, 0, None)


def test_gpus_launches_the_same_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, with options before the command; the run's name may be that of the command."""
    from click.testing import CliRunner

    from imgtool.cli import main
    from imgtool.training.parallel import launch

    launched: list[Any] = []
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(launch, "launch", lambda *arguments: launched.append(arguments) or 7)
    line = ["--debug", "train", "--name", "train", "--gpus", "2", "--device", "cpu"]
    assert CliRunner().invoke(main, line).exit_code == 7
    assert launched == [(line, 2, 3, "cpu")]
