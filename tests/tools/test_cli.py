"""The command line as users see it, in a separate process where that can differ, else in this one for speed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imgtool import wordnet
from imgtool.cli import main

COMMANDS = ["prepare", "verify", "train", "val", "predict", "export", "report", "synset", "info", "sample", "bench"]


def imgtool(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imgtool", *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # several threads slow down networks this small
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=cwd, env=environment, timeout=1800)


def here(*args: object) -> Result:
    """Runs the command in this process, which has imported torch already."""
    return CliRunner().invoke(main, [*map(str, args)], prog_name="imgtool")


def test_help_and_import_do_not_import_torch():
    script = (
        "import sys, imgtool, imgtool.cli\n"
        "from click.testing import CliRunner\n"
        "assert 'prepare' in CliRunner().invoke(imgtool.cli.main, ['--help']).output\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'scipy', 'PIL', 'torchvision'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_classifier_imports_heavy_packages_only_on_use():
    """They take longer to import than torch, and every command that reads weights would wait for them."""
    script = (
        "import sys, imgtool.training.classifier\n"
        "heavy = {'torchvision', 'torch._dynamo', 'sympy', 'triton', 'scipy', 'onnx', 'timm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_help_lists_every_command_in_the_order_of_use():
    shown = imgtool("--help").stdout.split("Commands:")[1]
    assert re.findall(r"^  (\w+)", shown, re.M) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command):
    result = here(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: imgtool {command}")


def test_exit_codes(tmp_path):
    """Success, an error found by click, and one found by us, in a separate process whose exit code a shell sees."""
    for args, code, message in (
        (["prepare", "--help"], 0, ""),
        (["prepare"], 2, "Missing option '--src'"),
        (["prepare", "--src", "nowhere"], 2, "imgtool: nowhere"),
    ):
        result = imgtool(*args, cwd=tmp_path)
        assert result.returncode == code
        assert message in result.stderr and "Traceback" not in result.stderr
        assert bool(result.stdout) == (code == 0)
        assert result.stdout.startswith("Usage: python -m imgtool prepare") or code


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["prepare", "--src", "nowhere"], 2, "nowhere"),
        (["prepare"], 2, "Missing option '--src'"),
        (["prepare", "--src", ".", "--quality", "101"], 2, "101 is not in the range"),
        (["train", "--data", "nowhere"], 2, "nowhere"),
        (["train", "--size", "q"], 2, "'q' is not one of"),
        (["val", "--weights", "nowhere.pt"], 2, "nowhere.pt"),
        (["predict", "a.jpg", "--weights", "nowhere.pt"], 2, "nowhere.pt"),
        (["report", "nowhere"], 2, "nowhere"),
        (["train", "--logger", "paper"], 2, "'paper'"),
        (["synset", "dgo.n.01"], 2, "dog.n.01"),
        (["info", "nowhere"], 2, "nowhere"),
        (["nonsense"], 2, "No such command 'nonsense'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    result = here(*args)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    if result.stderr.startswith("imgtool:"):
        assert len(result.stderr.strip().splitlines()) == 1


def test_debug_shows_the_traceback(tmp_path):
    result = imgtool("--debug", "prepare", "--src", "nowhere", cwd=tmp_path)
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_synset():
    shown = here("synset", "n02084071").stdout
    assert "dog.n.01" in shown
    assert "118: 151, 152" in shown
    (dog,) = json.loads(here("synset", "dog.n.01", "--json").stdout)
    assert (dog["wnid"], len(dog["classes"]), len(dog["paths"])) == ("n02084071", 118, 2)
    assert [s["class_index"] for s in json.loads(here("synset", "crane", "--json").stdout)] == [517, 134]
    assert "great_white_shark" in here("synset", "2").stdout
    assert "kitten.n.01" in here("synset", "kitten.n.01", "--full").stdout


def test_info_states_the_sizes():
    shown = here("info").stdout
    for size, parameters, flops in (("n", "2,719,288", "0.405"), ("x", "57,422,840", "18.843")):
        assert re.search(rf"^{size} +{parameters} .*{flops}", shown, re.M)
    n, *_, x = json.loads(here("info", "--json").stdout)["sizes"]
    assert (n["parameters"], x["parameters"]) == (2_719_288, 57_422_840) and round(n["gflops_224"], 3) == 0.405
    cited = here("info", "--cite").stdout
    assert "ILSVRC15" in cited
    assert "miller1995wordnet" in cited


def test_a_truncated_archive_exits_1(drawn, tmp_path):
    train = (drawn / "ILSVRC2012_img_train.tar").read_bytes()
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "ILSVRC2012_img_train.tar").write_bytes(train[: len(train) // 2])
    result = imgtool("prepare", "--src", "s", "--out", "out", "--workers", "1", cwd=tmp_path)
    assert result.returncode == 1
    assert "truncated" in result.stderr
    assert "incomplete" in result.stderr
    assert re.search(r"out: \d+ train samples; ", result.stdout)
    assert "classes have no sample in train" in result.stdout
    assert "report.html" not in result.stdout
    again = imgtool("prepare", "--src", "s", "--out", "out", "--workers", "1", cwd=tmp_path)
    assert (again.returncode, "complete already" in again.stdout) == (1, False)
    train = here("train", "--data", tmp_path / "out", "--name", tmp_path / "run")
    assert train.exit_code == 2
    assert "incomplete" in train.stderr


def test_the_main_job(drawn, tmp_path, monkeypatch):
    """prepare, train, val, info and predict in a row, each on the output of the one before."""
    result = imgtool("prepare", "--src", drawn, "--out", "data", "--max-side", 96, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["stored"] == {"train": 80, "val": 20}
    assert report["status"]["repaired:grayscale"] == 10
    again = imgtool("prepare", "--src", drawn, "--out", "data", "--max-side", 96, cwd=tmp_path)
    assert "complete already" in again.stdout
    assert "ilsvrc2012" in imgtool("info", "data", cwd=tmp_path).stdout
    described = json.loads(imgtool("info", "data", "--json", cwd=tmp_path).stdout)
    assert described["train"]["samples"] == 80 and described["train"]["bytes"] > 0
    assert described["settings"]["max_side"] == 96

    train = ("train", "--size", "n", "--data", "data", "--imgsz", 32, "--batch", 16, "--epochs", 2, "--name", "first")
    result = imgtool(*train, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "runs/first"
    header, *epochs = (run / "results.csv").read_text().splitlines()
    assert header.startswith("epoch,time,train/loss,metrics/accuracy_top1,metrics/accuracy_top5,val/loss,lr/pg0")
    assert len(epochs) == 2
    monkeypatch.chdir(tmp_path)
    assert here(*train).exit_code == 2, "a finished run is not overwritten"

    metrics = json.loads(imgtool("val", "--weights", "runs/first", "--data", "data", "--json", cwd=tmp_path).stdout)
    assert metrics["images"] == 20
    best = max(float(line.split(",")[3]) for line in epochs)
    assert metrics["top1"] == pytest.approx(best, abs=1e-6)
    shown = here("info", "runs/first").stdout
    assert re.search(r"classes +10\b", shown)
    described = json.loads(here("info", "runs/first", "--json").stdout)
    assert described["parameters"] > 1e6 and described["top-1"] == pytest.approx(metrics["top1"])

    with tarfile.open(drawn / "ILSVRC2012_img_val.tar") as archive:
        (tmp_path / "a.JPEG").write_bytes(archive.extractfile("ILSVRC2012_val_00000001.JPEG").read())
    result = imgtool("predict", "a.JPEG", "--weights", "runs/first", "--json", cwd=tmp_path)
    found = json.loads(result.stdout)
    assert len(found["wnids"]) == 5
    assert sum(found["probabilities"]) <= 1 + 1e-6
    bad = imgtool("predict", "data/dataset.json", "a.JPEG", "--weights", "runs/first", cwd=tmp_path)
    assert bad.returncode == 2
    assert len(bad.stderr.splitlines()) == 1
    assert re.match("imgtool: .*data/dataset.json.*not an image", bad.stderr)
    assert bad.stdout.startswith("a.JPEG"), "the other image is still predicted"


def test_a_folder_that_cannot_be_created_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = CliRunner().invoke(main, ["sample", "--out", str(tmp_path / "file/ILSVRC2012")])
    assert (done.exit_code, done.stderr) == (1, f"imgtool: {tmp_path}/file/ILSVRC2012: Not a directory\n")


def test_what_a_resumed_run_cannot_change_is_named(drawn, tmp_path, monkeypatch):
    """Also where it is no setting of the recipe; and a mistyped option leaves no run behind."""
    monkeypatch.chdir(tmp_path)
    here("prepare", "--src", str(drawn), "--out", "d", "--max-side", "48", "--workers", "1")
    train = ["train", "--data", "d", "--imgsz", "32", "--epochs", "1", "--batch", "40", "--name", "r", "--no-plots"]
    wrong = here(*train, "--precision", "fp8")
    assert wrong.exit_code == 2 and "fp8" in wrong.output and not Path("runs/r").exists()
    large = here(*train, "--batch", "5000")
    assert large.exit_code == 2 and "5,000" in large.output and "80" in large.output and not Path("runs/r").exists()
    done = here(*train)
    assert done.exit_code == 0, done.output
    wordnet.load("d").labelmap({"thing": "entity.n.01"}).save("map.json")
    for option in (["--precision", "bf16"], ["--sync-bn"], ["--size", "s"], ["--labelmap", "map.json"]):
        refused = here("train", "--resume", "--name", "r", *option)
        assert refused.exit_code == 2 and "cannot resume runs/r" in refused.output, refused.output
    hint = here("val", "--weights", "r", "--data", "d")
    assert hint.exit_code == 2 and "runs/r" in hint.output
