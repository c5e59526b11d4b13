"""prepare under faults: killed at any moment, disk full, source removed. It never leaves a file with wrong content."""

from __future__ import annotations

import contextlib
import functools
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imgtool.pipelines.dataset import STATE, Dataset
from imgtool.pipelines.prepare import engines
from imgtool.pipelines.prepare import run as prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.storage import atomic
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.sample import write_sample
from imgtool.wordnet.errors import DatasetError, ImgtoolError, SourceError

SETTINGS = Settings(max_side=0, quality=95, shard_size=1, format="both")
KILLS = 40
MOST_RENAMES = 200  # an upper bound of twice the renames in one prepare of this source; there are about 30


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_xxh3(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 train and 10 val images, about six shards."""
    out = tmp_path_factory.mktemp("faults") / "ILSVRC2012"
    write_sample(out, train_count=30, val_count=1)
    return out


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of an uninterrupted run: name → hash."""
    out = tmp_path_factory.mktemp("whole") / "data"
    prepare.prepare(source, out, SETTINGS, workers=1)
    assert sum(name.endswith(".beton") for name in contents(out)) > 4
    return contents(out)


def child(job: Callable[[], object]) -> int:
    """Runs the job in a forked process, which starts at once; returns its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            job()
            code = 0
        finally:
            os._exit(code)
    return pid


def check_finished_files(out: Path, expected: dict[str, str]) -> None:
    """Checks that every file under its final name is complete, and so is a data set with dataset.json."""
    for path in out.rglob("*"):
        name = str(path.relative_to(out))
        if path.is_file() and not name.startswith(".") and not name.endswith(".tmp"):
            assert file_xxh3(path) == expected[name], name
    if (out / "dataset.json").exists():
        assert Dataset(out).num_samples("train") == 300


class AtEachCall:
    """While entered, counts this thread's calls of and returns from Python and C functions.

    The count is the same in each run of the same work on every machine. At count ``last`` the process is killed.
    """

    def __init__(self, last: int | None = None) -> None:
        self.last, self.count = last, 0

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def __enter__(self) -> AtEachCall:
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def test_killed_at_random_moments(source, whole, tmp_path):
    """kill -9 at random calls, again and again, into the same output: the final bytes are the same."""
    with AtEachCall() as calls:
        prepare.prepare(source, tmp_path / "counted", SETTINGS, workers=1)
    moments, out = random.Random(0), tmp_path / "out"
    finished = killed = 0

    def run(last: int) -> None:
        with AtEachCall(last):
            prepare.prepare(source, out, SETTINGS, workers=1)

    for _ in range(KILLS):
        last = moments.randrange(1, 3 * calls.count // 4)
        killed += os.WIFSIGNALED(os.waitpid(child(functools.partial(run, last)), 0)[1])
        check_finished_files(out, whole)
        if (out / "dataset.json").exists():
            finished += 1
            shutil.rmtree(out)
    prepare.prepare(source, out, SETTINGS, workers=1)
    assert contents(out) == whole
    assert killed > KILLS / 2
    assert finished, "some runs finished, so that every part of the work was interrupted"


def test_killed_at_each_rename(source, whole, tmp_path, monkeypatch):
    """Files get their names by renames: killed right before and right after each rename."""
    replace, out = os.replace, tmp_path / "out"

    def run(stop: int, after: bool) -> None:
        count = itertools.count()

        def replace_or_die(source: object, target: object) -> None:
            last = next(count) == stop
            if last and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(atomic.os, "replace", replace_or_die)
        prepare.prepare(source, out, SETTINGS, workers=1)

    for deaths in range(MOST_RENAMES):
        # Each run continues where the previous ones were killed and gets one rename further.
        status = os.waitpid(child(functools.partial(run, deaths // 2, bool(deaths % 2))), 0)[1]
        check_finished_files(out, whole)
        if not os.WIFSIGNALED(status):
            break
    else:
        pytest.fail(f"none of {MOST_RENAMES} runs finished, although each should get further than the one before")
    assert contents(out) == whole
    assert deaths > 8


# prepare on two processes. The first kills itself, or both, at a named moment: the plan is made ("plan"), both are
# writing a shard ("both"), samples are done ("samples"), or a file has got its name (that name).
RUN = """
import os, signal, sys, time
from pathlib import Path
from imgtool.pipelines.storage import atomic
from imgtool.pipelines.prepare import engines
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings

def reached(name):
    if name == moment:
        kill(os.getpid(), signal.SIGKILL)

def write(*args):
    while not (list(out.glob("*/*.tmp")) or list(out.glob(".parts/*"))):  # of the other process
        time.sleep(0.01)
    reached("both")
    write_shard(*args)

def rename(source, target):
    replace(source, target)
    reached(target.name)

if __name__ == "__main__":
    source, out, moment, kill = sys.argv[1], Path(sys.argv[2]), sys.argv[3], getattr(os, sys.argv[4])
    write_shard, replace = engines.write_shard, os.replace
    engines.write_shard, atomic.os.replace = write, rename
    progress = lambda samples, skipped: reached("samples" if samples else "")
    settings = Settings(max_side=0, quality=95, shard_size=1, format="both")
    prepare(source, out, settings, workers=2, on_plan=lambda *_: reached("plan"), progress=progress)
"""


def run_until(moment: str, kill: str, source: Path, folder: Path) -> int:
    """Runs RUN into ``folder``/out until it kills itself (os.kill) or its group (os.killpg); returns its process id."""
    (folder / "run.py").write_text(RUN)
    command = [sys.executable, folder / "run.py", source, folder / "out", moment, kill]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            assert process.wait(300) == -signal.SIGKILL, f"prepare finished without reaching {moment}"
        finally:
            process.kill()
    return process.pid


@pytest.mark.parametrize("kill", ["killpg", "kill"], ids=["with its workers", "alone"])
def test_killed_with_two_processes(source, whole, tmp_path, kill):
    for moment in (STATE, "plan", "both", "samples", "train.parquet"):
        run_until(moment, kill, source, tmp_path)
        check_finished_files(tmp_path / "out", whole)
    prepare.prepare(source, tmp_path / "out", SETTINGS, workers=2)
    assert contents(tmp_path / "out") == whole


def test_workers_die_with_a_killed_prepare(source, tmp_path, wait_until):
    """Otherwise they would keep writing the shards that the next run makes."""
    session = run_until("both", "kill", source, tmp_path)
    wait_until(lambda: not members_of_session(session), "the end of the workers")


def members_of_session(session: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()  # state, ppid, pgrp, session
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def test_a_full_disk(source, whole, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no permission to mount a small disk")
    try:
        out = disk / "out"
        with pytest.raises(ImgtoolError, match=r"No space left on device.* are kept"):
            prepare.prepare(source, out, SETTINGS, workers=1)
        check_finished_files(out, whole)
        assert not list(out.rglob("*.tmp"))
        with pytest.raises(DatasetError, match="has not finished"):
            Dataset(out)
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        prepare.prepare(source, out, SETTINGS, workers=1)
        assert contents(out) == whole
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("what", ["source", "output"])
def test_permission_denied(source, whole, tmp_path, what):
    """Runs as a user other than root, because root is denied nothing.

    That user may not be able to read this checkout; the fixture ``whole`` has imported everything that prepare needs.
    """
    root, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(source, root)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o755)
    out.mkdir(mode=0o555 if what == "output" else 0o777)
    out.chmod(0o555 if what == "output" else 0o777)
    if what == "source":
        (root / "ILSVRC2012_img_train.tar").chmod(0)
    result = tmp_path / "result"
    result.mkdir(mode=0o777)
    result.chmod(0o777)

    def run() -> None:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            prepare.prepare(root, out, SETTINGS, workers=1)
        except ImgtoolError as error:
            (result / "error").write_text(str(error))

    assert os.waitpid(child(run), 0)[1] == 0
    message = (result / "error").read_text()
    assert "Permission denied" in message and str(root if what == "source" else out) in message
    assert "\n" not in message
    assert not list(out.rglob("*.beton"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_source_that_is_removed(source, whole, tmp_path, workers):
    root, out = tmp_path / "ILSVRC2012", tmp_path / "out"
    shutil.copytree(source, root)
    gone = root / "ILSVRC2012_img_train.tar"
    with pytest.raises(SourceError, match=r"ILSVRC2012_img_train\.tar: No such file"):
        prepare.prepare(root, out, SETTINGS, workers=workers, on_plan=lambda plan, left: gone.unlink())
    check_finished_files(out, whole)
    shutil.copy(source / gone.name, gone)
    prepare.prepare(root, out, SETTINGS, workers=workers)
    assert contents(out) == whole


def test_a_killed_worker(source, whole, tmp_path, monkeypatch):
    """As by the kernel when memory runs out. The worker has its first shards when this process starts its own shard."""
    out, write_shard = tmp_path / "out", engines.write_shard

    def kill_then_write(*args: object) -> None:
        for worker in multiprocessing.active_children():
            worker.kill()
        write_shard(*args)

    monkeypatch.setattr(engines, "write_shard", kill_then_write)
    with pytest.raises(ImgtoolError, match="worker process died"):
        prepare.prepare(source, out, SETTINGS, workers=2)
    check_finished_files(out, whole)
    monkeypatch.undo()
    prepare.prepare(source, out, SETTINGS, workers=2)
    assert contents(out) == whole


def test_a_source_that_shrinks(source, tmp_path):
    root = tmp_path / "ILSVRC2012"
    shutil.copytree(source, root)
    tar = root / "ILSVRC2012_img_train.tar"
    with pytest.raises(SourceError, match="become shorter"):
        prepare.prepare(
            root, tmp_path / "out", SETTINGS, workers=1, on_plan=lambda plan, left: os.truncate(tar, 1_000_000)
        )
    assert not (tmp_path / "out" / "dataset.json").exists()
