"""Claim: on a GPU, training is limited by the model, and the model's step comes close to the memory bandwidth.

\b
    imgtool bench gpu --src ILSVRC2012 --tiny tiny-imagenet-200.tar  # everything
    imgtool bench gpu --only model --sizes n,s  # one part, for two sizes
    imgtool bench gpu --table  # print the table from the files, measure nothing

There are six parts, each limited to --limit-seconds: tests (tests/gpu), model (training steps on a batch in the
device's memory: eager, compiled, as a CUDA graph), loaders (crops from the page cache into the device's memory, with
DALI and nvJPEG for comparison), train (imgtool train from shards), inference (imgtool bench inference), accuracy (a
complete training on Tiny-ImageNet). Each measurement is written to OUT/gpu-PART.json at once. If a part is stopped, by
its time limit or otherwise, its measurements are kept, and the same command continues after them. Data sets and runs
are kept in --work. On a CPU (--device cpu) the same steps are rehearsed with tiny settings; the files say so.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import click

from imgtool.bench.options import DRAWN, SIZES, CommaList, FiniteRange, SourcePath, rehearsal

PARTS = ("tests", "model", "loaders", "train", "inference", "accuracy")


@click.command(help=__doc__)
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Run only this part; may be repeated. [all]")
@click.option("--src", type=SourcePath(), help="Images: ILSVRC2012, or another source with a train split. [synthetic]")
@click.option(
    "--tiny", type=SourcePath(), help="Tiny-ImageNet as a tar or folder, for the accuracy part. [skip that part]"
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the JSON files. [docs/results; cpu: WORK/rehearsal]",
)
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/gpu"),
    show_default=True,
    help="Folder for data sets and runs, reused by the next call.",
)
@click.option("--device", help="cuda, cuda:N, or cpu for a rehearsal. [cuda]")
@click.option("--limit-seconds", default=540.0, show_default=True, type=FiniteRange(0), help="Time limit of each part.")
@click.option("--again", is_flag=True, help="Repeat measurements that are already in the files.")
@click.option("--commit", help="Commit to record with each measurement. [from git, with a + if files are modified]")
@click.option("--sizes", type=CommaList(SIZES), help="Model sizes, separated by commas. [n,s,m,l,x]")
@click.option(
    "--batches",
    type=CommaList(click.IntRange(1)),
    help="Batches of the model part, separated by commas. [512,1024,256]",
)
@click.option("--threads", type=CommaList(click.IntRange(1)), help="Loader threads, separated by commas. [1,4,8,16]")
@click.option("--samples", type=click.IntRange(1), help="Samples in the data sets of loaders and train. [50,000]")
@click.option("--rounds", type=click.IntRange(1), help="Rounds of model and loaders; results are medians. [5]")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of the accuracy part. [100]")
@click.option("--table", "only_table", is_flag=True, help="Print the table; measure nothing.")
@rehearsal(device="cpu", tiny=DRAWN)
def main(
    only: tuple[str, ...],
    src: str | None,
    tiny: str | None,
    out: Path | None,
    work: Path,
    device: str | None,
    limit_seconds: float,
    again: bool,
    commit: str | None,
    only_table: bool,
    rehearse: bool,
    **chosen: Any,
) -> None:
    import torch

    from imgtool.bench.gpu import loaders, model, others, results, table, trainings
    from imgtool.bench.gpu.settings import REHEARSAL, BenchSettings, Workload
    from imgtool.training.engine.signals import Interrupted
    from imgtool.training.parallel.device import resolve_device

    measures: dict[str, tuple[Callable[..., None], Callable[..., list[table.Row]]]] = {
        "tests": (others.measure_tests, others.test_rows),
        "model": (model.measure, model.rows),
        "loaders": (loaders.measure, loaders.rows),
        "train": (trainings.measure_train, trainings.train_rows),
        "inference": (others.measure_inference, others.inference_rows),
        "accuracy": (trainings.measure_accuracy, trainings.accuracy_rows),
    }
    rows = [(part, rows_of) for part, (_, rows_of) in measures.items()]
    if only_table:
        click.echo(table.table(out or Path("docs/results"), rows))
        return
    if "accuracy" in only and tiny is None:
        raise click.UsageError("the accuracy part trains on Tiny-ImageNet: give --tiny")
    target = resolve_device(device)
    if device is None and target.type != "cuda":
        raise click.UsageError("torch finds no CUDA GPU; --device cpu rehearses every step")
    if rehearse and target.type != "cpu":
        raise click.UsageError("a rehearsal runs on the CPU: give --rehearse or --device, not both")
    if cuda := target.type == "cuda":
        torch.cuda.set_device(target)
    workload = replace(Workload() if cuda else REHEARSAL, **{key: value for key, value in chosen.items() if value})
    if workload.samples < workload.loader_batch:
        raise click.UsageError(f"--samples must be at least {workload.loader_batch}, the batch size of the loaders")
    out = out or (Path("docs/results") if cuda else work / "rehearsal")
    settings = BenchSettings(target, out, work, src, tiny, limit_seconds, again, commit or results.commit(), workload)
    work.mkdir(parents=True, exist_ok=True)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)  # so that child processes are stopped, too

    before = signal.signal(signal.SIGTERM, interrupt)
    failures: list[str] = []
    try:
        for part in only or [part for part in PARTS if part != "accuracy" or tiny]:
            click.echo(f"== {part}")
            failures += _measure(results.PartResults(part, settings), settings, measures[part][0])
    finally:
        signal.signal(signal.SIGTERM, before)
    click.echo()
    click.echo(table.table(out, rows))
    if failures:
        raise click.ClickException("; ".join(failures))


def _measure(results: Any, settings: Any, measure: Callable[..., None]) -> list[str]:
    """Measures a part and returns its failures, which are reported after all other parts have run."""
    from imgtool.bench.gpu.results import OutOfTime
    from imgtool.wordnet.errors import ImgtoolError

    try:
        measure(settings, results)
    except OutOfTime:
        click.echo("time limit reached: run the same command again to continue")
        return list(results.failures)
    except ImgtoolError as error:
        return [*results.failures, str(error)]
    results.finish()
    return list(results.failures)
