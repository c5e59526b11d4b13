"""Checkpoints are written atomically and read without running code."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from imgtool.training.checkpoints import checkpoint
from imgtool.wordnet.errors import CheckpointError


def content(value: float = 1.0) -> dict[str, Any]:
    return {
        "size": "n",
        "dropout": 0.0,
        "imgsz": 224,
        "wnids": ["n01440764"],
        "names": ["tench"],
        "epoch": 1,
        "metrics": None,
        "recipe": {},
        "ema": {"w": torch.full((1000,), value)},
        "resume": None,
    }


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", content())
    loaded = checkpoint.load(tmp_path / "a.pt")
    assert torch.equal(loaded["ema"]["w"], torch.ones(1000)) and loaded["wnids"] == ["n01440764"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("stage", ["write", "sync", "rename"])
def test_a_failed_save_keeps_the_old_file(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save(path, content(1.0))

    def half(values: Any, file: Any) -> None:
        file.write(b"half of a checkpoint")
        raise RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    target, name, broken = {
        "write": (torch, "save", half),
        "sync": (os, "fsync", fail),
        "rename": (os, "replace", fail),
    }[stage]
    monkeypatch.setattr(target, name, broken)
    with pytest.raises(CheckpointError, match=r"cannot write .*a\.pt"):
        checkpoint.save(path, content(2.0))
    monkeypatch.undo()
    assert torch.equal(checkpoint.load(path)["ema"]["w"], torch.ones(1000))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_ctrl_c_during_a_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save(path, content(1.0))

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, content(2.0))
    assert torch.equal(checkpoint.load(path)["ema"]["w"], torch.ones(1000))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


class Malicious:
    def __reduce__(self) -> Any:
        return exec, ("import pathlib; pathlib.Path('pwned').touch()",)


@pytest.mark.parametrize("how", ["torch", "torch-legacy", "pickle"])
def test_a_malicious_pickle_is_refused_and_does_not_run(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = content() | {"format": checkpoint.FORMAT, "recipe": Malicious()}
    if how == "pickle":
        Path("evil.pt").write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save(evil, "evil.pt", _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(CheckpointError, match=r"evil\.pt is (refused|damaged)") as caught:
        checkpoint.load("evil.pt")
    assert not Path("pwned").exists()
    assert "\n" not in str(caught.value)
    torch.load("evil.pt", weights_only=False) if how != "pickle" else pickle.loads(Path("evil.pt").read_bytes())
    assert Path("pwned").exists()  # it does run in pickle


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_truncated(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save(path, content())
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    with pytest.raises(CheckpointError, match=r"a\.pt is damaged") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_foreign_missing_and_newer(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(CheckpointError, match=r"a\.pt: no such checkpoint"):
        checkpoint.load(path)
    foreigners: list[Any] = [{"state_dict": {}}, [1, 2], torch.ones(3)]
    for foreign in foreigners:
        torch.save(foreign, path)
        with pytest.raises(CheckpointError, match="is not a checkpoint of imgtool"):
            checkpoint.load(path)
    torch.save(content() | {"format": "imgtool-checkpoint-2"}, path)
    with pytest.raises(CheckpointError, match="upgrade imgtool"):
        checkpoint.load(path)
    torch.save({"format": checkpoint.FORMAT, "size": "n"}, path)
    with pytest.raises(CheckpointError, match="lacks the keys dropout"):
        checkpoint.load(path)


def test_find(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no checkpoint: weights/best\.pt"):
        checkpoint.find(tmp_path)
    (tmp_path / "weights").mkdir()
    last, best = tmp_path / "weights" / "last.pt", tmp_path / "weights" / "best.pt"
    last.touch()
    assert checkpoint.find(tmp_path) == last
    best.touch()
    assert checkpoint.find(tmp_path) == best
    assert checkpoint.find(last) == last
