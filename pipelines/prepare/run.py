"""prepare(): raw data set in, shards out, by plan → shard tasks → commit.

Files are written atomically and dataset.json is written last. A rerun makes only what is missing. The output is a pure
function of the source's bytes and the settings.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgtool.pipelines import dataset
from imgtool.pipelines.dataset.manifest import write_table
from imgtool.pipelines.prepare.commit import Tally, commit, first_causes, is_whole, rows_of, tally
from imgtool.pipelines.prepare.engines import Engine, Say
from imgtool.pipelines.prepare.plan import Plan, make_plan
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.prepare.shard_task import PARTS, Shard, Skip
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.folders import Folder, is_url, open_folder, write_text
from imgtool.pipelines.storage.lock import LOCK, locked
from imgtool.wordnet.errors import DatasetError, ImgtoolError, InputError, TruncatedSourceError

SPOOL = ".source"
REPORT = "report.html"
SHOWN = 5
"""How many classes without samples a note names."""


@dataclass(frozen=True)
class Limits:
    """When a prepare fails although it could continue.

    ``strict``: at the first skipped sample. ``max_skipped``: at more skipped samples than this; None is no limit. A
    truncated source is an error unless ``accept_truncated``.
    """

    strict: bool = False
    max_skipped: int | None = None
    accept_truncated: bool = False

    def check(self, skipped: int, last: Skip | None) -> None:
        """Raises ImgtoolError if ``skipped`` samples exceed the limit; ``last`` is the latest one, for the message."""
        which = f", {last.key} ({last.source}): {last.cause}" if last else ""
        advice = "the finished shards are kept; repair the source, or run the same command again"
        if self.strict and skipped:
            raise ImgtoolError(f"{skipped} samples cannot be stored{which}; {advice} without --strict")
        if self.max_skipped is not None and skipped > self.max_skipped:
            raise ImgtoolError(
                f"{skipped} samples cannot be stored, more than --max-skipped {self.max_skipped}; the last one"
                f"{which}; {advice} with a higher limit"
            )


@dataclass(frozen=True)
class Summary:
    """The result of prepare: counts over the data set, stored samples by split, and notes on what is left out."""

    out: str
    tally: Tally
    stored: dict[str, int]
    already_complete: bool = False
    reported: bool = False
    """Whether report.html was written."""
    notes: list[str] = field(default_factory=list)


def prepare(
    src: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    workers: int | None = None,
    engine: Engine | None = None,
    limits: Limits | None = None,
    spool: str | Path | None = None,
    on_plan: Callable[[Plan, int], None] | None = None,
    progress: Callable[[int, int], None] = lambda samples, skipped: None,
    say: Say = lambda line: None,
    on_end: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Turns the raw data set ``src`` into shards, manifests and class table in ``out``; both are paths or URLs.

    ``workers`` is the number of processes (default: this machine's cores); an ``engine`` replaces them, for example by
    a Ray cluster. ``spool`` is a folder for compressed archives, which must be unpacked (default: a folder in ``out``).
    ``on_plan(plan, remaining_samples)`` is called when the plan is made, ``progress(samples, skipped)`` with the counts
    since its last call, and ``say`` with a line for the user if worker processes cannot be used. Raises SourceError or
    DatasetError if the source cannot be read or the output cannot be used, ImgtoolError if a limit is exceeded or no
    image can be stored, and TruncatedSourceError if an archive ended early. In the last two cases what there is is
    saved first, the data set is marked incomplete, and ``on_end`` gets the summary, as it does without an error.
    """
    settings, limits = settings or Settings(), limits or Limits()
    run = _Preparation(open_folder(out), settings, limits, engine or Engine(workers=workers), on_plan, progress, say)
    _check_distinct(src, out)
    try:
        run.check_folder()
        plan = make_plan(open_source(src, _spool(spool, run.folder)), settings)
        with locked(run.folder):
            summary = run.make(plan, Path(str(src)).name)
    except OSError as error:
        kept = "the finished shards are kept: " if run.begun else ""
        raise ImgtoolError(
            f"{error.filename or out}: {error.strerror or error}; {kept}fix this and run the same command again"
        ) from error
    on_end(summary)
    if plan.truncated and not limits.accept_truncated:
        raise TruncatedSourceError(
            f"{'; '.join(plan.truncated)}. Its {sum(summary.stored.values())} intact samples are saved in {out}, "
            "which is marked incomplete: repair the source and run again, or accept it with --accept-truncated"
        )
    if not any(summary.stored.values()):
        causes = first_causes(run.folder, list(plan.splits))
        raise ImgtoolError(
            f"{src}: none of its {plan.samples:,} images could be stored: {causes}; the manifest, {out}/*.parquet, has "
            "the cause for each"
        )
    return summary


def _check_distinct(src: str | Path, out: str | Path) -> None:
    """Raises InputError if source and output are the same folder."""
    same = str(src).rstrip("/") == str(out).rstrip("/")
    if same or (not (is_url(src) or is_url(out)) and os.path.realpath(src) == os.path.realpath(out)):
        raise InputError(f"{out}: is both --src and --out; give the prepared data set another folder")


def dry_plan(src: str | Path, out: str | Path, settings: Settings, *, spool: str | Path | None = None) -> Plan:
    """Makes the plan that ``prepare`` would follow, and leaves nothing behind.

    A compressed archive is unpacked for it, into a temporary folder on the disk of ``spool`` or ``out``.
    """
    _check_distinct(src, out)
    wanted = _spool(spool, open_folder(out))
    if wanted is None:
        return make_plan(open_source(src), settings)
    there = next(folder for folder in (wanted, *wanted.absolute().parents) if folder.is_dir())
    temporary = there / f".imgtool-{uuid.uuid4().hex}"  # made only if there is something to unpack
    try:
        return make_plan(open_source(src, temporary), settings)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _spool(spool: str | Path | None, folder: Folder) -> Path | None:
    if spool is None and not folder.remote:
        return Path(folder.url) / SPOOL
    return Path(spool) if spool else None


@dataclass
class _Preparation:
    """One call of prepare()."""

    folder: Folder
    settings: Settings
    limits: Limits
    engine: Engine
    on_plan: Callable[[Plan, int], None] | None
    progress: Callable[[int, int], None]
    say: Say
    begun: bool = False
    """Whether shards are made, or were."""

    def check_folder(self) -> None:
        """Raises DatasetError if the output is neither empty nor a data set, finished or not."""
        if self.folder.remote:
            found = {name.partition("/")[0] for name, _ in self.folder.walk()}
        else:
            path = Path(self.folder.url)
            if file := next((folder for folder in (path, *path.absolute().parents) if folder.is_file()), None):
                raise DatasetError(f"{file}: is a file; --out must be a folder")
            found = {entry.name for entry in path.iterdir()} if path.exists() else set()
        if found and not found & {dataset.INFO, dataset.STATE, LOCK, SPOOL}:
            if dataset.CLASS_TABLE in found:
                raise DatasetError(f"{self.folder.url}: {dataset.INFO} is missing; delete the folder and prepare again")
            raise DatasetError(f"{self.folder.url}: is not empty and not a prepared data set; choose another --out")

    def make(self, plan: Plan, name: str) -> Summary:
        """Makes what is missing of the plan. ``name``: the source's, for dataset.json."""
        source = {"layout": plan.source.layout, "name": name, "fingerprint": plan.fingerprint}
        complete = self.limits.accept_truncated or not plan.truncated
        finished = self._check_existing(plan, source)
        self.begun = True
        present = dict(self.folder.walk())
        if finished and finished["complete"] == complete and _is_complete(self.folder, finished, present):
            summary = self._finish(plan, already_complete=complete, report=complete and REPORT not in present)
            self.limits.check(summary.tally.skipped, None)
            return summary
        state = {"settings": self.settings.to_dict(), "source": source}
        write_text(self.folder, dataset.STATE, json.dumps(state, indent=1))
        shards = list(plan.shards())
        if finished:
            self._restore_parts(shards, finished, present)
        missing, skipped = self._missing(shards, present)
        if self.on_plan:
            self.on_plan(plan, sum(shard.end - shard.begin for shard in missing))
        self.limits.check(skipped, None)

        def report(samples: int, skips: list[Skip]) -> None:
            nonlocal skipped
            skipped += len(skips)
            self.progress(samples, len(skips))
            if skips:
                self.limits.check(skipped, skips[-1])

        self.engine.run(missing, lambda shard: plan.task(shard, self.folder.url), report, self.say)
        commit(self.folder, plan, source, complete)
        return self._finish(plan, already_complete=False, report=complete)

    def _missing(self, shards: list[Shard], present: dict[str, int]) -> tuple[list[Shard], int]:
        """Returns the shards that are still to be made, and the number of skipped samples in the others."""
        missing, skipped = [], 0
        for shard in shards:
            if shard.rows_name not in present:
                missing.append(shard)
                continue
            try:
                entry, rows = rows_of(self.folder, shard)
            except pa.ArrowException:  # damaged
                missing.append(shard)
                continue
            if all(present.get(file["path"]) == file["bytes"] for file in entry["files"]):
                skipped += rows["position"].null_count
            else:
                missing.append(shard)
        return missing, skipped

    def _check_existing(self, plan: Plan, source: dict[str, Any]) -> dict[str, Any] | None:
        """Returns dataset.json of a data set made by this plan; None if there is none or it is not finished.

        Raises DatasetError if the folder has a data set of other settings or another source.
        """
        found: dict[str, Any] = {}
        for name in (dataset.INFO, dataset.STATE):
            try:
                found = json.loads(self.folder.read(name))
                before, origin = found["settings"], found["source"]
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError):
                raise DatasetError(
                    f"{self.folder.url}: {name} is damaged; delete the folder and prepare again"
                ) from None
            break
        else:
            return None
        descriptions = {"labelmap": "another label map", "real": "other ReaL labels"}
        differing = [
            descriptions.get(key, f"{key} {before.get(key)!r} → {value!r}")
            for key, value in plan.settings.to_dict().items()
            if before.get(key) != value
        ]
        if differing:
            raise DatasetError(
                f"{self.folder.url}: was prepared with other settings ({', '.join(differing)}); choose another --out "
                "or delete it"
            )
        if origin["fingerprint"] != source["fingerprint"]:
            if found.get("complete") is not False:
                before, now = (f"{one['layout']} {one['name']}" for one in (origin, source))
                changed = f"({before}, now {now})" if before != now else f"or the list of images of {now} has changed"
                raise DatasetError(
                    f"{self.folder.url}: was prepared from another source {changed}; choose another --out or delete it"
                )
            self._clear(plan)  # the truncated source has been repaired: its shards have another order
            return None
        return found if "splits" in found else None

    def _clear(self, plan: Plan) -> None:
        """Removes the data set from the folder."""
        for name in (dataset.INFO, dataset.CLASS_TABLE, REPORT, dataset.STATE, PARTS):
            self.folder.remove(name)
        for split in {*plan.splits, "train", "val"}:
            self.folder.remove(split)
            self.folder.remove(f"{split}.parquet")

    def _restore_parts(self, shards: list[Shard], finished: dict[str, Any], present: dict[str, int]) -> None:
        """Restores the shards' manifest rows from a finished data set, so that only missing shards are made again."""
        for split, entry in finished["splits"].items():
            if not is_whole(self.folder, f"{split}.parquet", entry["samples"] + entry["skipped"]):
                continue  # its shards are made again
            with self.folder.local_path(f"{split}.parquet") as path:
                rows = pq.read_table(path)
            entries = {shard["index"]: shard for shard in entry["shards"]}
            for shard in shards:
                if shard.split == split and shard.index in entries and shard.rows_name not in present:
                    part = rows.filter(pc.equal(rows["shard"], shard.index))
                    part = part.replace_schema_metadata({"shard": json.dumps(entries[shard.index])})
                    write_table(self.folder, shard.rows_name, part)
                    present[shard.rows_name] = 1

    def _finish(self, plan: Plan, already_complete: bool, report: bool) -> Summary:
        """Writes the report, removes the files of an unfinished prepare and those that killed ones left, and counts."""
        counted, stored = tally(self.folder, list(plan.splits), len(plan.selection.wnids))
        if reported := report and any(stored.values()):
            self._write_report(list(plan.splits))
        for name in (dataset.STATE, PARTS, SPOOL):
            self.folder.remove(name)
        if not self.folder.remote:
            for leftover in Path(self.folder.url).rglob("*.tmp"):
                leftover.unlink(missing_ok=True)
        notes = [*plan.notes(), *plan.source.passed_over.notes(), *self._notes(plan, counted, stored)]
        return Summary(self.folder.url, counted, stored, already_complete, reported, notes)

    def _notes(self, plan: Plan, counted: Tally, stored: dict[str, int]) -> list[str]:
        """Returns a line for what looks wrong in the result: splits and classes without samples, no split val."""
        notes = [
            f"no image of {name} could be stored: {first_causes(self.folder, [name])}"
            for name, samples in stored.items()
            if not samples
        ]
        if empty := counted.empty_classes:
            wnids = [plan.selection.wnids[index] for index in empty[:SHOWN]]
            more = ", …" if len(empty) > SHOWN else ""
            notes.append(
                f"{len(empty):,} of {len(plan.selection.wnids):,} classes have no sample in train: "
                f"{', '.join(wnids)}{more}"
            )
        if "train" in stored and "val" not in stored:
            labelled = [name for name in stored if name != "train" and plan.splits[name].labels.min(initial=0) >= 0]
            choice = f", or imgtool train --val-split {labelled[0]}" if labelled else ""
            notes.append(f"no split val, which training needs: prepare with --val-fraction 0.1{choice}")
        return notes

    def _write_report(self, splits: list[str]) -> None:
        from imgtool.pipelines.report import write_report

        if not self.folder.remote:
            write_report(Path(self.folder.url))
            return
        # The report needs the tables and the first shards: copy them here.
        with tempfile.TemporaryDirectory(prefix="imgtool-") as temporary:
            here = Path(temporary)
            names = [dataset.INFO, dataset.CLASS_TABLE, *(f"{split}.parquet" for split in splits)]
            info = json.loads(self.folder.read(dataset.INFO))
            for entry in info["splits"].values():
                names += [file["path"] for shard in entry["shards"][:1] for file in shard["files"]]
            for name in names:
                (here / name).parent.mkdir(exist_ok=True)
                with self.folder.local_path(name) as path:
                    shutil.copyfile(path, here / name)
            made = write_report(here)
            with self.folder.atomic_write(REPORT) as path:
                shutil.copyfile(made, path)


def _is_complete(folder: Folder, finished: dict[str, Any], present: dict[str, int]) -> bool:
    """Whether a finished data set has every shard file with its full size, and its tables can be read."""
    files = (f for split in finished["splits"].values() for shard in split["shards"] for f in shard["files"])
    tables = {f"{name}.parquet": split["samples"] + split["skipped"] for name, split in finished["splits"].items()}
    tables[dataset.CLASS_TABLE] = finished["classes"]
    return all(present.get(file["path"]) == file["bytes"] for file in files) and all(
        is_whole(folder, name, rows) for name, rows in tables.items()
    )
