"""imgtool prepare"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imgtool.pipelines.prepare import Summary
    from imgtool.pipelines.prepare.plan import Plan
    from imgtool.pipelines.prepare.settings import Settings

SRC = "Raw data set: a folder, archive or parquet file, recognised by its content; a path or URL (s3://…)."


@click.command()
@click.option("--src", required=True, help=SRC)
@click.option("--out", default="data/imagenet", show_default=True, help="Folder for shards and tables; a path or URL.")
@click.option("--max-side", type=click.IntRange(0), help="Shrink so that the longer side is at most this. [500]")
@click.option("--short-side", type=click.IntRange(0), help="Shrink so that the shorter side is at most this. [off]")
@click.option("--quality", type=click.IntRange(1, 100), default=90, show_default=True, help="JPEG quality.")
@click.option(
    "--store",
    type=click.Choice(["jpeg", "jpeg-indexed", "fit", "original", "raw"]),
    default="jpeg",
    show_default=True,
    help="Encode every image anew; with restart markers for faster crops; pass on what fits the sizes already; pass "
    "on all; or store RGB pixels.",
)
@click.option(
    "--subsampling",
    type=click.Choice(["420", "422", "444"]),
    default="420",
    show_default=True,
    help="Of the chroma planes.",
)
@click.option(
    "--exif",
    type=click.Choice(["apply", "ignore"]),
    default="apply",
    show_default=True,
    help="Turn images upright as their EXIF orientation says, or keep them as their pixels lie.",
)
@click.option("--skip-smaller", type=click.IntRange(0), default=0, help="Skip images with a shorter side below this.")
@click.option("--classes", default="", help='Keep only these, for example "dog.n.01 - poodle.n.01". [all]')
@click.option("--labelmap", help="Gather the classes into the targets of this label map (JSON).")
@click.option("--labels", help="real.json: further classes of validation images, kept in the manifest.")
@click.option("--limit", type=click.IntRange(0), default=0, help="At most this many samples a split, at random. [all]")
@click.option("--split-holdout", type=click.IntRange(0), default=0, help="Samples of train to set apart as minival.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["beton", "wds", "both"]),
    default="beton",
    show_default=True,
    help="FFCV's shards, WebDataset tars with DALI's index, or both from one recode.",
)
@click.option(
    "--shard-size", type=click.IntRange(1), default=256, show_default=True, help="Megabytes (10^6) a shard, roughly."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the order of the samples.")
@click.option("--workers", type=click.IntRange(1), help="Tasks at once. [this machine's cores, or the cluster's]")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="What runs the tasks: processes of this machine, or a Ray cluster.",
)
@click.option("--address", help="Of the Ray cluster: auto, or HOST:PORT. [a cluster of this machine alone]")
@click.option("--spool", help="Folder to unpack a compressed archive into, for the time of the run. [below --out]")
@click.option("--check-md5", is_flag=True, help="First compare the archives with their published md5 sums.")
@click.option("--strict", is_flag=True, help="A sample that cannot be stored is an error.")
@click.option("--max-skipped", type=click.IntRange(0), help="Stop when more samples than this cannot be stored.")
@click.option("--accept-truncated", is_flag=True, help="Take what is whole of an archive that ends early as complete.")
@click.option("--dry-run", is_flag=True, help="Say what would be made, how large, in what time, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
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
    """Turn a raw data set into shards, manifest and label map.

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
            click.echo(f"resuming: {plan.samples - left:,} samples are done", err=True)
        bar = SampleProgress(left)

    try:
        summary = run(
            src,
            out,
            settings,
            engine=Engine(engine, workers, address),
            limits=Limits(strict, max_skipped, accept_truncated),
            spool=spool,
            on_plan=on_plan,
            progress=lambda samples, skipped: bar(samples, skipped),
        )
    finally:
        bar.close()
    _echo_summary(summary, bar, as_json)


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
        raise click.UsageError("--classes and --labelmap each choose the classes: give one of them")
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
    """What a run would make, from the images that planning has recoded."""
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
        click.echo(json.dumps({"out": out, "workers": workers, "splits": rows, "total": total}))
        return
    for name, row in (*rows.items(), ("all", total)):
        click.echo(
            f"  {name:8} {row['samples']:>12,} samples  {row['bytes_in'] / 1e6:>12,.1f} MB → about "
            f"{row['bytes_out'] / 1e6:>12,.1f} MB in {row['shards']:,} shards, about {_duration(row['seconds'])}"
        )
    for message in plan.truncated:
        click.echo(f"  {message}")
    click.echo(f"nothing was written to {out}; sizes and times are estimates from the first images, {workers} workers")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _echo_summary(summary: Summary, bar: Any, as_json: bool) -> None:
    tally, out = summary.tally, summary.out
    report: dict[str, Any] = {
        "out": out,
        "already_complete": summary.already_complete,
        "stored": summary.stored,
        "status": dict(tally.status),
        "bytes_in": tally.bytes_in,
        "bytes_out": tally.bytes_out,
        "several_wnids": tally.multi_class,
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
        click.echo(f"  each has its row in {out}/*.parquet")
    if tally.multi_class:
        click.echo(f"  {tally.multi_class:,} images are of several classes: the manifest has all their wnids")
    if tally.also_in_train:
        click.echo(f"  {tally.also_in_train:,} images of other splits are in train too, byte for byte")
    for note in summary.notes:
        click.echo(f"  {note}")
    click.echo(f"  {out}/report.html shows them")
