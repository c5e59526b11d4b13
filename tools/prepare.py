"""imgtool prepare"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imgtool.pipelines.plan import Plan


@click.command()
@click.option(
    "--src",
    required=True,
    help="Raw data set: a folder with the ILSVRC2012 archives, Tiny-ImageNet, or folders of class folders.",
)
@click.option("--out", default="data/imagenet", show_default=True, help="Folder for shards, manifest and label map.")
@click.option("--max-side", type=click.IntRange(0), help="Shrink so that the longer side is at most this. [500]")
@click.option("--short-side", type=click.IntRange(0), help="Shrink so that the shorter side is at most this. [off]")
@click.option("--quality", type=click.IntRange(1, 100), default=90, show_default=True, help="JPEG quality.")
@click.option(
    "--exif",
    type=click.Choice(["apply", "ignore"]),
    default="apply",
    show_default=True,
    help="Turn pictures upright as their EXIF orientation says, or keep them as their pixels lie.",
)
@click.option("--classes", default="", help='Keep only these, for example "dog.n.01 - poodle.n.01". [all]')
@click.option("--labelmap", "labelmap_path", help="Gather the classes into the targets of this label map (JSON).")
@click.option(
    "--shard-size", type=click.IntRange(1), default=256, show_default=True, help="Megabytes (10^6) a shard, roughly."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the order of the samples.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes. [this machine's cores]")
@click.option("--accept-truncated", is_flag=True, help="Take what is whole of an archive that ends early as complete.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def prepare(
    src: str,
    out: str,
    max_side: int | None,
    short_side: int | None,
    quality: int,
    exif: str,
    classes: str,
    labelmap_path: str | None,
    shard_size: int,
    seed: int,
    workers: int | None,
    accept_truncated: bool,
    as_json: bool,
) -> None:
    """Turn a raw data set into shards, manifest and label map.

    Archives are read in place. A rerun of the same command makes only what is missing.
    """
    from imgtool.pipelines.prepare import prepare as run
    from imgtool.pipelines.settings import Settings
    from imgtool.progress import SampleProgress
    from imgtool.wordnet.relabel import LabelMap

    if max_side is None:
        max_side = 0 if short_side else 500
    if classes and labelmap_path:
        raise click.UsageError("--classes and --labelmap each choose the classes: give one of them")
    labelmap = LabelMap.load(labelmap_path) if labelmap_path else None
    settings = Settings(max_side, short_side or 0, quality, exif, seed, shard_size, classes, labelmap)
    bar = SampleProgress(0, quiet=True)

    def on_plan(plan: Plan, left: int) -> None:
        nonlocal bar
        splits = ", ".join(f"{len(records):,} {split}" for split, records in plan.splits.items())
        click.echo(f"{src}: {plan.source.layout}, {len(plan.selection.wnids)} classes, {splits} pictures", err=True)
        if left < plan.samples:
            click.echo(f"resuming: {plan.samples - left:,} samples are done", err=True)
        bar = SampleProgress(left)

    try:
        summary = run(
            src,
            out,
            settings,
            workers=workers,
            accept_truncated=accept_truncated,
            on_plan=on_plan,
            progress=lambda samples, skipped: bar(samples, skipped),
        )
    finally:
        bar.close()
    tally = summary.tally
    report: dict[str, Any] = {
        "out": str(summary.out),
        "already_complete": summary.already_complete,
        "stored": summary.stored,
        "status": dict(tally.status),
        "bytes_in": tally.bytes_in,
        "bytes_out": tally.bytes_out,
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
