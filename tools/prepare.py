"""imgtool prepare"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from imgtool.option_groups import GroupedCommand, option_group

if TYPE_CHECKING:
    from imgtool.pipelines.prepare import Summary
    from imgtool.pipelines.prepare.plan import Plan
    from imgtool.pipelines.prepare.settings import Settings

SOURCE, IMAGES, SELECTION, OUTPUT, RUN = map(
    option_group, ("Source", "Stored images", "Samples and classes", "Output", "Run")
)


@click.command(cls=GroupedCommand)
@SOURCE("--src", required=True, help="Raw data set: folder, archive or parquet file, as a path or URL (s3://…).")
@SOURCE("--labels", help="real.json: adds the ReaL classes of the validation images to the manifest.")
@SOURCE("--check-md5", is_flag=True, help="First compare the archives with their published MD5 sums.")
@SOURCE(
    "--accept-truncated",
    is_flag=True,
    help="Accept a truncated archive: store its complete images and mark the data set complete.",
)
@SOURCE("--spool", show_default="inside --out", help="Folder to unpack a compressed archive into during the run.")
@IMAGES(
    "--max-side",
    type=click.IntRange(0),
    show_default="500",
    help="Shrink images so that the longer side is at most N pixels; 0: any.",
)
@IMAGES(
    "--short-side",
    type=click.IntRange(0),
    show_default="0",
    help="Shrink images so that the shorter side is at most N pixels; 0: any.",
)
@IMAGES("--quality", type=click.IntRange(1, 100), default=90, show_default=True, help="JPEG quality.")
@IMAGES(
    "--store",
    type=click.Choice(["jpeg", "jpeg-indexed", "fit", "original", "raw"]),
    default="jpeg",
    show_default=True,
    help="jpeg: encode every image again. jpeg-indexed: the same with restart markers, for faster crops. fit: copy the "
    "JPEGs that are within the sizes. original: copy every JPEG. raw: store RGB pixels.",
)
@IMAGES(
    "--subsampling",
    type=click.Choice(["420", "422", "444"]),
    default="420",
    show_default=True,
    help="Chroma subsampling of the JPEGs that are encoded.",
)
@IMAGES(
    "--exif",
    type=click.Choice(["apply", "ignore"]),
    default="apply",
    show_default=True,
    help="Turn images upright as their EXIF orientation says, or ignore it.",
)
@SELECTION(
    "--classes", default="", show_default="all", help='Keep these classes only, for example "dog.n.01 - poodle.n.01".'
)
@SELECTION("--labelmap", help="Label map (JSON file): store its targets instead of the source's classes.")
@SELECTION(
    "--limit",
    type=click.IntRange(0),
    default=0,
    show_default="all",
    help="Keep at most N samples per split, chosen at random.",
)
@SELECTION(
    "--split-holdout",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Move N samples of train to a split minival, each class in proportion.",
)
@SELECTION(
    "--val-fraction",
    type=click.FloatRange(0, 1, max_open=True),
    default=0,
    show_default=True,
    help="Move this fraction of each class of train to a split val, for a source without one.",
)
@SELECTION("--skip-smaller", type=click.IntRange(0), default=0, help="Skip images with a side shorter than N pixels.")
@SELECTION("--strict", is_flag=True, help="Stop at the first image that cannot be stored.")
@SELECTION(
    "--max-skipped",
    type=click.IntRange(0),
    show_default="no limit",
    help="Stop when more than N images cannot be stored.",
)
@OUTPUT("--out", default="data/imagenet", show_default=True, help="Folder for shards and tables; a path or URL.")
@OUTPUT(
    "--format",
    "form",
    type=click.Choice(["beton", "wds", "both"]),
    default="beton",
    show_default=True,
    help="FFCV shards, WebDataset tars with DALI's index, or both.",
)
@OUTPUT(
    "--shard-size",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Approximate size of a shard in MB (10^6 bytes).",
)
@OUTPUT("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the sample order.")
@RUN(
    "--workers",
    type=click.IntRange(1),
    show_default="the cores of the machine or cluster",
    help="Number of shards made at the same time.",
)
@RUN(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Run in processes on this machine, or on a Ray cluster.",
)
@RUN("--address", show_default="a new cluster on this machine", help="Address of the Ray cluster: auto, or HOST:PORT.")
@RUN("--dry-run", is_flag=True, help="Print what would be made, with its estimated size and time, and stop.")
@RUN("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def prepare(
    src: str,
    out: str,
    workers: int | None,
    engine: str,
    address: str | None,
    spool: str | None,
    check_md5: bool,
    strict: bool,
    max_skipped: int | None,
    accept_truncated: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn a raw data set into shards, class table and manifest.

    Archives are read in place. A rerun of the same command makes only what is missing.
    """
    from imgtool.pipelines.prepare import Limits, dry_plan
    from imgtool.pipelines.prepare import prepare as run
    from imgtool.pipelines.prepare.engines import Engine
    from imgtool.pipelines.prepare.plan import describe
    from imgtool.pipelines.threads import available_cpus
    from imgtool.progress import SampleProgress

    settings = _settings(**options)
    if check_md5:
        _check_md5(src)
    if dry_run:
        plan = dry_plan(src, out, settings, spool=spool)
        click.echo(describe(plan, src), err=as_json)
        _echo_plan(plan, out, workers or available_cpus(), as_json)
        return
    bar = SampleProgress(0, quiet=True)

    def on_plan(plan: Plan, left: int) -> None:
        nonlocal bar
        click.echo(describe(plan, src), err=True)
        if left < plan.samples:
            click.echo(f"resuming: {plan.samples - left:,} samples are done already", err=True)
        bar = SampleProgress(left)

    summaries: list[Summary] = []
    try:
        run(
            src,
            out,
            settings,
            engine=Engine(engine, workers, address),
            limits=Limits(strict, max_skipped, accept_truncated),
            spool=spool,
            on_plan=on_plan,
            progress=lambda samples, skipped: bar(samples, skipped),
            say=lambda line: click.echo(line, err=True),
            on_end=summaries.append,
        )
    finally:
        bar.close()
        for summary in summaries:
            _echo_summary(summary, settings, bar, as_json)


def _settings(
    max_side: int | None,
    short_side: int | None,
    form: str,
    labelmap: str | None,
    labels: str | None,
    split_holdout: int,
    **same: Any,
) -> Settings:
    from imgtool.pipelines.prepare.settings import Settings
    from imgtool.wordnet.graph.label_map import LabelMap

    if same["classes"] and labelmap:
        raise click.UsageError("--classes and --labelmap both choose the classes: give only one of them")
    if max_side is None:
        max_side = 0 if short_side or same["store"] == "original" else 500
    real = None
    if labels:
        from imgtool.pipelines.annotations.real import read_real_labels

        real = read_real_labels(labels)
    return Settings(
        max_side=max_side,
        short_side=short_side or 0,
        format=form,
        label_map=LabelMap.load(labelmap) if labelmap else None,
        real=real,
        holdout=split_holdout,
        **same,
    )


def _check_md5(src: str) -> None:
    from imgtool.pipelines.archives.checksums import check_md5
    from imgtool.progress import ByteProgress

    bar = ByteProgress("md5")
    try:
        checked = check_md5(src, bar)
    finally:
        bar.close()
    click.echo(f"md5 as published: {', '.join(checked)}", err=True)


def _echo_plan(plan: Plan, out: str, workers: int, as_json: bool) -> None:
    """Prints what a run would make, estimated from the images that planning has recoded."""
    rows: dict[str, dict[str, Any]] = {}
    for name, split in plan.splits.items():
        samples = len(split)
        rows[name] = {
            "samples": samples,
            "bytes_in": round(split.bytes_in),
            "bytes_out": round(samples * split.probe.bytes_out * len(plan.settings.formats)),
            "shards": len(split.bounds) - 1,
            "seconds": round(samples * split.probe.seconds / min(workers, len(split.bounds) - 1), 1),
        }
    total = {key: sum(row[key] for row in rows.values()) for key in next(iter(rows.values()))}
    if as_json:
        click.echo(json.dumps({"out": out, "workers": workers, "splits": rows, "total": total, "notes": plan.notes()}))
        return
    for name, row in (*rows.items(), ("all", total)):
        click.echo(
            f"  {name:8} {row['samples']:>12,} samples  {row['bytes_in'] / 1e6:>12,.1f} MB → about "
            f"{row['bytes_out'] / 1e6:>12,.1f} MB in {row['shards']:,} shards, about {_duration(row['seconds'])}"
        )
    for message in (*plan.truncated, *plan.notes()):
        click.echo(f"  {message}")
    click.echo(
        f"nothing was written to {out}; sizes and times are estimated from the first images, for {workers} workers"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _echo_summary(summary: Summary, settings: Settings, bar: Any, as_json: bool) -> None:
    from imgtool.pipelines.prepare.commit import MAX_WNIDS

    tally, out = summary.tally, summary.out
    report: dict[str, Any] = {
        "out": out,
        "already_complete": summary.already_complete,
        "stored": summary.stored,
        "status": dict(tally.status),
        "bytes_in": tally.bytes_in,
        "bytes_out": tally.bytes_out,
        "several_wnids": tally.multi_class,
        "placeholders": tally.placeholders,
        "also_in_train": tally.also_in_train,
        "notes": summary.notes,
    }
    if not summary.already_complete:
        report["seconds"] = round(bar.seconds, 2)
        report["images_per_second"] = round(bar.done / max(bar.seconds, 1e-9), 1)
    if as_json:
        click.echo(json.dumps(report))
        return
    stored = ", ".join(f"{count:,} {split}" for split, count in summary.stored.items())
    if summary.already_complete:
        click.echo(f"{out} is complete already: {stored} samples")
        return
    click.echo(
        f"{out}: {stored} samples; {tally.bytes_in / 1e6:,.1f} MB in, {tally.bytes_out / 1e6:,.1f} MB stored, "
        f"{report['images_per_second']:,.0f} img/s"
    )
    for status, count in sorted(tally.status.items()):
        if status != "ok":
            click.echo(f"  {count:,} {status}")
    if tally.skipped:
        click.echo(f"  the manifest, {out}/*.parquet, has the cause for each")
    if tally.multi_class:
        click.echo(f"  {tally.multi_class:,} images belong to several classes: the manifest has all their wnids")
    if tally.placeholders:
        click.echo(
            f"  {tally.placeholders:,} images are copies of one that is in more than {MAX_WNIDS} classes, as the image "
            "that stands for dead links is: they keep only their own wnid"
        )
    if tally.bytes_out > 1.05 * tally.stored_bytes_in and settings.store.startswith("jpeg"):
        click.echo(
            f"  the stored images have {tally.bytes_out / tally.stored_bytes_in:.0%} of the source's bytes: --store "
            "fit copies the JPEGs that are within the sizes"
        )
    if tally.also_in_train:
        click.echo(f"  {tally.also_in_train:,} images of other splits are byte for byte in train too")
    for note in summary.notes:
        click.echo(f"  {note}")
    if summary.reported:
        click.echo(f"  report: {out}/report.html")
