"""imgtool verify"""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("data", default="data/imagenet")
@click.option("--deep", is_flag=True, help="Also decode every sample.")
@click.option("--workers", type=click.IntRange(1), show_default="the number of cores", help="Number of threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(data: str, deep: bool, workers: int | None, as_json: bool) -> None:
    """Verify that a prepared data set is complete and undamaged.

    Checks every hash and every sample, and the manifest against the shards. Prints one line per fault. The exit code is
    1 if there is any.
    """
    from imgtool.pipelines.dataset import Dataset
    from imgtool.pipelines.dataset.verify import verify as run
    from imgtool.progress import SampleProgress

    dataset = Dataset(data)
    bar = SampleProgress(sum(dataset.info["splits"][split]["samples"] for split in dataset.splits))
    try:
        proof = run(data, deep=deep, workers=workers, progress=bar)
    finally:
        bar.close()
    if as_json:
        faults = [{"where": fault.location, "what": fault.problem} for fault in proof.faults]
        click.echo(json.dumps({**vars(proof), "deep": deep, "faults": faults}))
    else:
        for fault in proof.faults:
            click.echo(f"{fault.location}: {fault.problem}")
        shards = f"{proof.shards:,} shard{'s' if proof.shards != 1 else ''}"
        looked = f"{proof.samples:,} samples, {shards}, {proof.bytes / 1e6:,.1f} MB"
        count = len(proof.faults)
        verdict = f"{count:,} fault{'s' if count > 1 else ''} in" if count else "undamaged,"
        click.echo(f"{data}: {verdict} {looked} {'hashed and decoded' if deep else 'hashed'}")
    if proof.faults:
        raise SystemExit(1)
