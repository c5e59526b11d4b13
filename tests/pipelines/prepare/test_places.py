"""Where prepare reads and writes: an output inside the source, the same folder twice, no /dev/shm, a dry run."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imgtool.cli import main
from imgtool.pipelines import dataset
from imgtool.pipelines.archives.outputs import MARKS, outputs_in
from imgtool.pipelines.prepare import engines, prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.wordnet.errors import ImgtoolError, InputError, SourceError

SMALL = Settings(max_side=64, format="both")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_xxh3(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def classes(tmp_path, draw_image, encoded) -> Path:
    """Two class folders in train with three images each."""
    root = tmp_path / "source"
    for number in range(6):
        path = root / "train" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(draw_image(50, 40, number)))
    return root


@pytest.mark.parametrize("place", ["out", "data/imagenet", "train/out", "train/a/out"])
def test_an_output_inside_the_source(classes, tmp_path, place):
    """It is not part of the source: the same command finds its work done, makes what was lost, and resumes."""
    prepare(classes, tmp_path / "elsewhere", SMALL, workers=1)
    out = classes / place
    prepare(classes, out, SMALL, workers=1)
    assert prepare(classes, out, SMALL, workers=1).already_complete
    expected = contents(tmp_path / "elsewhere")
    assert contents(out) == expected
    (out / "train/00000.beton").unlink()
    assert not prepare(classes, out, SMALL, workers=1).already_complete
    assert contents(out) == expected


def test_a_killed_prepare_inside_its_source_resumes(classes, tmp_path, monkeypatch):
    out = classes / "data/imagenet"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("imgtool.pipelines.prepare.run.commit", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(classes, out, SMALL, workers=1)
    assert list(out.rglob("*.beton")) and list(out.rglob("*.tar"))
    prepare(classes, tmp_path / "elsewhere", SMALL, workers=1)
    prepare(classes, out, SMALL, workers=1)
    assert contents(out) == contents(tmp_path / "elsewhere")


def test_outputs_inside_the_source_are_counted_in_a_line(classes, tmp_path):
    prepare(classes, classes / "old", SMALL, workers=1)
    run_folder = classes / "runs" / "train"
    run_folder.mkdir(parents=True)
    for name in ("run.json", "log.txt", "train_batch0.jpg"):
        (run_folder / name).write_bytes(b"{}")
    files = len(contents(classes / "old"))
    summary = prepare(classes, tmp_path / "out", SMALL, workers=1)
    assert summary.stored == {"train": 6}
    notes = " ".join(summary.notes)
    assert str(files) in notes and "a prepared data set" in notes
    assert "3" in notes and "a training run" in notes


def test_outputs_are_known_by_their_marks():
    assert outputs_in({"a/dataset.json", "a/labels.parquet", "a/b/.prepare.json", "c/.prepare.json"}) == {
        "a/": "a prepared data set",
        "c/": "an unfinished prepared data set",
    }
    assert outputs_in({"a/dataset.json", "a/run.json", "b/log.txt", "labels.parquet"}) == {}
    assert {dataset.INFO, dataset.STATE} < MARKS.keys() and MARKS[dataset.INFO][0] == dataset.CLASS_TABLE


def test_a_prepared_data_set_as_source(drawn_data, tmp_path, classes):
    with pytest.raises(SourceError, match="is a prepared data set, not a raw data set"):
        open_source(drawn_data)
    with pytest.raises(InputError, match="both --src and --out"):
        prepare(drawn_data, drawn_data)
    (tmp_path / "link").symlink_to(classes)
    for out in (f"{classes}/", classes / "train" / "..", tmp_path / "link"):
        with pytest.raises(InputError, match="both --src and --out"):
            prepare(classes, out)
        assert "both --src and --out" in run("prepare", "--src", classes, "--out", out, "--dry-run").output


def test_a_dry_run_leaves_nothing_behind(classes, tmp_path):
    source = tmp_path / "source.tgz"
    with tarfile.open(source, "w:gz") as archive:
        archive.add(classes, "source")
    here = tmp_path / "here"
    (here / "spool").mkdir(parents=True)
    (here / "started").mkdir()
    before = sorted(here.rglob("*"))
    for more in (["--out", here / "new/out"], ["--out", here / "started"]):
        for spool in ([], ["--spool", here / "spool"], ["--spool", here / "other/spool"]):
            result = run("prepare", "--src", source, "--dry-run", *more, *spool)
            assert "6 samples" in result.output
            assert sorted(here.rglob("*")) == before
    (tmp_path / "damaged.tgz").write_bytes(source.read_bytes()[:100] + b"x" * 50)
    assert run("prepare", "--src", tmp_path / "damaged.tgz", "--dry-run", "--out", here / "new").exit_code
    assert sorted(here.rglob("*")) == before


def test_without_semaphores_one_process_does_the_work(drawn, tmp_path, monkeypatch):
    prepare(drawn, tmp_path / "two", Settings(max_side=64), workers=2)

    class NoSemaphores:
        def Queue(self) -> None:
            raise OSError(30, "Read-only file system")

    monkeypatch.setattr(multiprocessing, "get_context", lambda method: NoSemaphores())
    lines: list[str] = []
    prepare(drawn, tmp_path / "one", Settings(max_side=64), workers=2, say=lines.append)
    assert len(lines) == 1 and "/dev/shm: Read-only file system" in lines[0]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_process_that_cannot_start_is_not_blamed_on_the_output(drawn, tmp_path, monkeypatch):
    def no_more(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(engines.ProcessPoolExecutor, "submit", no_more)
    with pytest.raises(ImgtoolError, match=r"worker process: Resource temporarily unavailable.*--workers 1"):
        prepare(drawn, tmp_path / "out", Settings(max_side=64), workers=2)


@pytest.mark.parametrize(
    "change",
    ["mount -t tmpfs -o ro none /dev/shm", "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3", "full"],
    ids=["read-only", "missing", "full"],
)
def test_containers_without_shared_memory(drawn, tmp_path, change):
    if change == "full":
        change = "mount -t tmpfs -o size=4k none /dev/shm && (cat /dev/zero > /dev/shm/full || true)"
    if subprocess.run(["unshare", "-m", "sh", "-c", change], capture_output=True).returncode:
        pytest.skip("no permission to change mounts")
    command = f"{change}; exec {sys.executable} -m imgtool prepare --src {drawn} --out {tmp_path}/out --workers 2"
    done = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "/dev/shm" in done.stderr
    assert dataset.Dataset(tmp_path / "out").num_samples("train") == 80
