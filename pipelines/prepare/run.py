"""Raw data set in, shards out: plan → shard tasks → commit.

What is renamed into place is whole; dataset.json is written last. A rerun does only what is missing, and the output is
a pure function of the source's bytes and the settings.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgtool.pipelines import dataset
from imgtool.pipelines.dataset.manifest import write_table
from imgtool.pipelines.prepare.commit import Tally, commit, rows_of, tally
from imgtool.pipelines.prepare.engines import Engine
from imgtool.pipelines.prepare.plan import Plan, make_plan
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.prepare.shard_task import PARTS, Shard, Skip
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.folders import Folder, open_folder, write_text
from imgtool.pipelines.storage.lock import LOCK, locked
from imgtool.wordnet.errors import DatasetError, ImgtoolError, TruncatedSourceError

SPOOL = ".source"
REPORT = "report.html"


@dataclass(frozen=True)
class Limits:
    """What stops a prepare although it could go on: any skipped sample, more than so many, a truncated source.

    ``max_skipped`` None is no limit.
    """

    strict: bool = False
    max_skipped: int | None = None
    accept_truncated: bool = False

    def check(self, skipped: int, last: Skip | None) -> None:
        """Raises ImgtoolError if this many skipped samples are too many."""
        which = f", {last.key} ({last.source}): {last.cause}" if last else ""
        kept = "the finished shards are kept; mend the source, or run the same command again"
        if self.strict and skipped:
            raise ImgtoolError(f"{skipped} samples cannot be stored{which}; {kept} without --strict")
        if self.max_skipped is not None and skipped > self.max_skipped:
            raise ImgtoolError(
                f"{skipped} samples cannot be stored, more than --max-skipped {self.max_skipped}; the last one"
                f"{which}; {kept} with a higher limit"
            )


@dataclass(frozen=True)
class Summary:
    """What prepare left: samples stored by split, the tally of all, what the source noted."""

    out: str
    tally: Tally
    stored: dict[str, int]
    already_complete: bool = False
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
) -> Summary:
    """Turns the raw data set ``src`` into shards, manifest and label map below ``out``; both are paths or URLs.

    ``workers`` is the number of processes (default: the cores of this machine) and ``engine`` where else they are to
    run. ``spool`` is a folder for what has to be unpacked (a compressed archive; default: below ``out``). ``on_plan(
    plan, samples_left)`` is called once the plan stands, ``progress(samples, skipped)`` as it goes. Raises SourceError
    or DatasetError for what cannot be done as asked, ImgtoolError where ``limits`` stop it, and TruncatedSourceError,
    after saving what is whole and marking the data set incomplete, for an archive that ended early.
    """
    settings, limits = settings or Settings(), limits or Limits()
    run = _Run(open_folder(out), settings, limits, engine or Engine(workers=workers), on_plan, progress)
    try:
        run.check_folder()
        plan = make_plan(open_source(src, _spool(spool, run.folder)), settings)
        with locked(run.folder):
            summary = run.make(plan, Path(str(src)).name)
    except OSError as error:
        raise ImgtoolError(
            f"{error.filename or out}: {error.strerror or error}; the finished shards are kept: mend this and run the "
            "same command again"
        ) from error
    if plan.truncated and not limits.accept_truncated:
        raise TruncatedSourceError(
            f"{'; '.join(plan.truncated)}. What is whole ({sum(summary.stored.values())} samples) is saved in {out}, "
            "marked incomplete: mend the source and run again, or accept it with --accept-truncated"
        )
    return summary


def dry_plan(src: str | Path, out: str | Path, settings: Settings, *, spool: str | Path | None = None) -> Plan:
    """The plan that ``prepare`` would follow; nothing is written, except that a compressed archive is unpacked."""
    return make_plan(open_source(src, _spool(spool, open_folder(out))), settings)


def _spool(spool: str | Path | None, folder: Folder) -> Path | None:
    if spool is None and not folder.remote:
        return Path(folder.url) / SPOOL
    return Path(spool) if spool else None


@dataclass
class _Run:
    folder: Folder
    settings: Settings
    limits: Limits
    engine: Engine
    on_plan: Callable[[Plan, int], None] | None
    progress: Callable[[int, int], None]

    def check_folder(self) -> None:
        if self.folder.remote:
            found = {name.partition("/")[0] for name, _ in self.folder.walk()}
        else:
            path = Path(self.folder.url)
            if path.exists() and not path.is_dir():
                raise DatasetError(f"{path}: is a file; --out takes a folder")
            found = {entry.name for entry in path.iterdir()} if path.exists() else set()
        if found and not found & {dataset.INFO, dataset.STATE, LOCK, SPOOL}:
            raise DatasetError(f"{self.folder.url}: is not empty and not a prepared data set; choose another --out")

    def make(self, plan: Plan, name: str) -> Summary:
        source = {"layout": plan.source.layout, "name": name, "fingerprint": plan.fingerprint}
        complete = self.limits.accept_truncated or not plan.truncated
        finished = self._check_existing(plan, source)
        present = dict(self.folder.walk())
        if finished and finished["complete"] == complete and _whole(finished, present):
            done = self._finish(plan, already=True, report=complete and REPORT not in present)
            self.limits.check(done.tally.skipped, None)
            return done
        state = {"settings": self.settings.to_dict(), "source": source}
        write_text(self.folder, dataset.STATE, json.dumps(state, indent=1))
        shards = list(plan.shards())
        if finished:
            self._restore_parts(shards, finished, present)
        left, skipped = self._left(shards, present)
        if self.on_plan:
            self.on_plan(plan, sum(shard.end - shard.begin for shard in left))
        self.limits.check(skipped, None)

        def report(samples: int, skips: list[Skip]) -> None:
            nonlocal skipped
            skipped += len(skips)
            self.progress(samples, len(skips))
            if skips:
                self.limits.check(skipped, skips[-1])

        self.engine.run(left, lambda shard: plan.task(shard, self.folder.url), report)
        commit(self.folder, plan, source, complete)
        return self._finish(plan, already=False, report=complete)

    def _left(self, shards: list[Shard], present: dict[str, int]) -> tuple[list[Shard], int]:
        """The shards that are still to be made, and the samples skipped in those that are not."""
        left, skipped = [], 0
        for shard in shards:
            if shard.rows_name not in present:
                left.append(shard)
                continue
            entry, rows = rows_of(self.folder, shard)
            if all(present.get(file["path"]) == file["bytes"] for file in entry["files"]):
                skipped += rows["position"].null_count
            else:
                left.append(shard)
        return left, skipped

    def _check_existing(self, plan: Plan, source: dict[str, Any]) -> dict[str, Any] | None:
        """The description of a data set of this very plan, None if nothing is finished. DatasetError on another."""
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
        words = {"labelmap": "another label map", "real": "other ReaL labels"}
        differing = [
            words.get(key, f"{key} {before.get(key)!r} → {value!r}")
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
                raise DatasetError(
                    f"{self.folder.url}: was prepared from another source ({origin['layout']} {origin['name']}, now "
                    f"{source['layout']} {source['name']}); choose another --out or delete it"
                )
            self._clear(plan)  # the truncated source has been mended: its shards are of another order
            return None
        return found if "splits" in found else None

    def _clear(self, plan: Plan) -> None:
        for name in (dataset.INFO, dataset.LABELS, REPORT, dataset.STATE, PARTS):
            self.folder.remove(name)
        for split in {*plan.splits, "train", "val"}:
            self.folder.remove(split)
            self.folder.remove(f"{split}.parquet")

    def _restore_parts(self, shards: list[Shard], finished: dict[str, Any], present: dict[str, int]) -> None:
        """Takes a finished data set's manifest apart again, so that only the shards that are gone are made anew."""
        for split, entry in finished["splits"].items():
            if f"{split}.parquet" not in present:
                continue
            with self.folder.local_path(f"{split}.parquet") as path:
                rows = pq.read_table(path)
            entries = {shard["index"]: shard for shard in entry["shards"]}
            for shard in shards:
                if shard.split == split and shard.index in entries and shard.rows_name not in present:
                    part = rows.filter(pc.equal(rows["shard"], shard.index))
                    part = part.replace_schema_metadata({"shard": json.dumps(entries[shard.index])})
                    write_table(self.folder, shard.rows_name, part)
                    present[shard.rows_name] = 1

    def _finish(self, plan: Plan, already: bool, report: bool) -> Summary:
        """Writes the report, and removes what only an unfinished run needs and what killed ones left."""
        if report:
            self._write_report(list(plan.splits))
        for name in (dataset.STATE, PARTS, SPOOL):
            self.folder.remove(name)
        if not self.folder.remote:
            for leftover in Path(self.folder.url).rglob("*.tmp"):
                leftover.unlink(missing_ok=True)
        counted, stored = tally(self.folder, list(plan.splits))
        notes = list(getattr(plan.source, "notes", ()))
        return Summary(self.folder.url, counted, stored, already, notes)

    def _write_report(self, splits: list[str]) -> None:
        from imgtool.pipelines.report import write_report

        if not self.folder.remote:
            write_report(Path(self.folder.url))
            return
        # The report needs the tables and the first shards: they are brought here for it.
        with tempfile.TemporaryDirectory(prefix="imgtool-") as temporary:
            here = Path(temporary)
            names = [dataset.INFO, dataset.LABELS, *(f"{split}.parquet" for split in splits)]
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


def _whole(finished: dict[str, Any], present: dict[str, int]) -> bool:
    """Whether all the shards of a finished data set lie there in their full size."""
    files = (f for split in finished["splits"].values() for shard in split["shards"] for f in shard["files"])
    return all(present.get(file["path"]) == file["bytes"] for file in files)
