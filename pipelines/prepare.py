"""Raw data set in, shards out: plan → shard tasks → commit.

What is renamed into place is whole; dataset.json is written last. A rerun does only what is missing, and the output is
a pure function of the source's bytes and the settings.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from imgtool.pipelines import dataset
from imgtool.pipelines.atomic import write_text
from imgtool.pipelines.engines import Progress, available_cpus, run_local
from imgtool.pipelines.manifest import label_map, write_table
from imgtool.pipelines.plan import Plan, make_plan
from imgtool.pipelines.shard_task import PARTS, Settings, ShardTask, Tally, is_whole, read_rows, shard_entry
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import DatasetError, ImgtoolError, TruncatedSourceError

STATE = ".prepare.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Summary:
    """What prepare did: samples stored and skipped by status and split, and bytes in and out."""

    out: Path
    tally: Tally
    stored: dict[str, int]
    already_complete: bool = False


def prepare(
    src: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    workers: int | None = None,
    accept_truncated: bool = False,
    on_plan: Callable[[Plan, int], None] | None = None,
    progress: Progress = lambda samples, skipped: None,
) -> Summary:
    """Turns the raw data set ``src`` into shards, manifest and label map below ``out``.

    ``workers`` is the number of processes (default: the cores of this machine). ``on_plan(plan, samples_left)`` is
    called once the plan stands. Raises SourceError or DatasetError for what cannot be done as asked, and
    TruncatedSourceError, after saving what is whole and marking the data set incomplete, for an archive that ended
    early, unless ``accept_truncated``.
    """
    settings = settings or Settings()
    source = open_source(src)
    out = Path(out)
    try:
        plan = make_plan(source, settings)
        complete = accept_truncated or not plan.truncated
        with _locked(out):
            finished = _check_existing(out, plan)
            if finished and finished["complete"] == complete and _shards_whole(out, finished):
                _tidy(out)
                summary = _summary(out, plan, already_complete=True)
            else:
                summary = _make(out, plan, finished, complete, workers or available_cpus(), on_plan, progress)
    except OSError as error:
        raise ImgtoolError(
            f"{error.filename or out}: {error.strerror}; the finished shards are kept: mend this and run the same "
            "command again"
        ) from error
    if not complete:
        raise TruncatedSourceError(
            f"{'; '.join(plan.truncated)}. What is whole ({sum(summary.stored.values())} samples) is saved in {out}, "
            "marked incomplete: mend the source and run again, or accept it with --accept-truncated"
        )
    return summary


def _make(
    out: Path,
    plan: Plan,
    finished: dict[str, Any] | None,
    complete: bool,
    workers: int,
    on_plan: Callable[[Plan, int], None] | None,
    progress: Progress,
) -> Summary:
    state = {"settings": plan.settings.to_dict(), "source": _describe(plan)}
    write_text(out / STATE, json.dumps(state, indent=1))
    tasks = list(plan.tasks(out))
    _restore_parts(out, tasks, finished)
    left = [task for task in tasks if read_rows(task) is None]
    if on_plan:
        on_plan(plan, sum(len(task.records) for task in left))
    run_local(left, workers, progress)
    _commit(out, plan, tasks, complete)
    _tidy(out)
    return _summary(out, plan)


def _describe(plan: Plan) -> dict[str, Any]:
    return {"layout": plan.source.layout, "name": Path(plan.source.root).name, "fingerprint": plan.fingerprint}


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Holds the output folder against a second prepare; the kernel lets go when this process ends, however it ends."""
    if out.exists() and not out.is_dir():
        raise DatasetError(f"{out}: is a file; --out takes a folder")
    ours = (dataset.INFO, STATE, LOCK)
    if out.exists() and any(out.iterdir()) and not any((out / name).exists() for name in ours):
        raise DatasetError(f"{out}: is not empty and not a prepared data set; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder removes the file when it is done: a lock on a removed file locks nobody out.
            os.stat(out / LOCK)
        except (BlockingIOError, FileNotFoundError):
            raise DatasetError(f"{out}: another imgtool prepare is writing here") from None
        yield
        (out / LOCK).unlink()
    finally:
        os.close(descriptor)


def _check_existing(out: Path, plan: Plan) -> dict[str, Any] | None:
    """The description of a data set of this very plan, None if nothing is finished. Raises DatasetError on another."""
    found: dict[str, Any] = {}
    for name in (dataset.INFO, STATE):
        if (out / name).exists():
            try:
                found = json.loads((out / name).read_text())
                before, source = found["settings"], found["source"]
            except (ValueError, KeyError, TypeError):
                raise DatasetError(f"{out / name}: is damaged; delete {out} and prepare again") from None
            break
    else:
        return None
    differing = [
        "another label map" if key == "labelmap" else f"{key} {before.get(key)!r} → {value!r}"
        for key, value in plan.settings.to_dict().items()
        if before.get(key) != value
    ]
    incomplete = found.get("complete") is False
    if differing:
        raise DatasetError(
            f"{out}: was prepared with other settings ({', '.join(differing)}); choose another --out or delete it"
        )
    if source["fingerprint"] != plan.fingerprint:
        if not incomplete:
            raise DatasetError(
                f"{out}: was prepared from another source ({source['layout']} {source['name']}, now "
                f"{plan.source.layout} {Path(plan.source.root).name}); choose another --out or delete it"
            )
        _clear(out)  # the truncated source has been mended: its shards are of another order
        return None
    return found if "splits" in found else None


def _clear(out: Path) -> None:
    for name in (dataset.INFO, dataset.LABELS, STATE):
        (out / name).unlink(missing_ok=True)
    for split in ("train", "val"):
        shutil.rmtree(out / split, ignore_errors=True)
        (out / f"{split}.parquet").unlink(missing_ok=True)
    shutil.rmtree(out / PARTS, ignore_errors=True)


def _restore_parts(out: Path, tasks: list[ShardTask], finished: dict[str, Any] | None) -> None:
    """Takes a finished data set's manifest apart again, so that only the shards that are gone are made anew."""
    if finished is None:
        return
    for split, entry in finished["splits"].items():
        try:
            rows = dataset.Dataset.manifest_at(out, split)
        except DatasetError:
            continue
        entries = {shard["path"]: shard for shard in entry["shards"]}
        for task in tasks:
            if task.split == split and task.path in entries and not task.rows_path.exists():
                shard = entries[task.path]
                meta = {key: str(shard[key]) for key in ("samples", "bytes", "xxh3")}
                task.rows_path.parent.mkdir(exist_ok=True)
                part = rows.filter(pc.equal(rows["shard"], task.index))
                write_table(task.rows_path, part.replace_schema_metadata(meta))


def _commit(out: Path, plan: Plan, tasks: list[ShardTask], complete: bool) -> None:
    splits: dict[str, Any] = {}
    counts: dict[str, dict[int, int]] = {}
    for split in plan.splits:
        parts = [(task, read_rows(task)) for task in tasks if task.split == split]
        entries = []
        for task, rows in parts:
            if rows is None:
                raise ImgtoolError(f"{out / task.path}: vanished while preparing; run the same command again")
            entries.append(shard_entry(rows, task.path))
        table = pa.concat_tables([rows.replace_schema_metadata(None) for _, rows in parts if rows is not None])
        write_table(out / f"{split}.parquet", table)
        stored = table.filter(pc.is_valid(table["position"]))
        counts[split] = dict(collections.Counter(stored["class_index"].to_pylist()))
        splits[split] = {
            "samples": stored.num_rows,
            "skipped": table.num_rows - stored.num_rows,
            "shards": [entry for entry in entries if entry["samples"]],
        }
    write_table(out / dataset.LABELS, label_map(plan.selection.wnids, plan.source.ilsvrc2012_ids, counts))
    info = {
        "format": dataset.FORMAT,
        "complete": complete,
        "problem": "; ".join(plan.truncated) or None,
        "source": _describe(plan),
        "settings": plan.settings.to_dict(),
        "classes": len(plan.selection.wnids),
        "splits": splits,
    }
    write_text(out / dataset.INFO, json.dumps(info, indent=1) + "\n")


def _tidy(out: Path) -> None:
    """Removes what only an unfinished run needs, and what killed ones left."""
    (out / STATE).unlink(missing_ok=True)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    for leftover in out.rglob("*.tmp"):
        leftover.unlink(missing_ok=True)


def _shards_whole(out: Path, finished: dict[str, Any]) -> bool:
    return all(is_whole(out, shard) for split in finished["splits"].values() for shard in split["shards"])


def _summary(out: Path, plan: Plan, already_complete: bool = False) -> Summary:
    tally = Tally()
    stored = {}
    for split in plan.splits:
        rows = dataset.Dataset.manifest_at(out, split)
        tally.add_rows(rows)
        stored[split] = rows.num_rows - rows["position"].null_count
    return Summary(out, tally, stored, already_complete)
