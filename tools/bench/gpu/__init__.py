"""Claim: on a GPU the loop is bound by the model, and the model's step comes near what memory allows.

\b
    imgtool bench gpu --src ILSVRC2012 --tiny tiny-imagenet-200.tar  # all of it
    imgtool bench gpu --only model --sizes n,s  # a piece of it
    imgtool bench gpu --table  # what the files say, nothing measured

Six parts, each of them in less than --limit-seconds: tests (tests/gpu), model (training steps on a batch that lies on
the device: eager, compiled, as a CUDA graph), loaders (crops from page cache into the device's memory, with DALI and
nvJPEG beside ours), train (imgtool train from shards), inference (imgtool bench inference), accuracy (a training on
Tiny-ImageNet to its end). Each measurement is written at once into OUT/gpu-PART.json; a part that is stopped, by its
limit or otherwise, keeps what it has, and the same command goes on behind it. Data sets and runs lie in --work until
then. On the CPU (--device cpu) the same steps are rehearsed with a little of everything; such files say so.
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
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="This part; may be repeated. [all]")
@click.option("--src", type=SourcePath(), help="Images: ILSVRC2012, or another source with a train split. [drawn ones]")
@click.option(
    "--tiny", type=SourcePath(), help="Tiny-ImageNet as a tar or folder, for accuracy. [that part is left out]"
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the JSON files. [docs/results; cpu: WORK/rehearsal]",
)
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/gpu"),
    show_default=True,
    help="Folder that keeps data sets and runs from call to call.",
)
@click.option("--device", help="cuda, cuda:N, or cpu for a rehearsal. [cuda]")
@click.option("--limit-seconds", default=540.0, show_default=True, type=FiniteRange(0), help="Of each part.")
@click.option("--again", is_flag=True, help="Measure anew what the files have already.")
@click.option("--commit", help="Recorded with each figure. [git's, with a + where files have been changed]")
@click.option("--sizes", type=CommaList(SIZES), help="Of the model, separated by commas. [n,s,m,l,x]")
@click.option(
    "--batches", type=CommaList(click.IntRange(1)), help="Of the model part, separated by commas. [512,1024,256]"
)
@click.option("--threads", type=CommaList(click.IntRange(1)), help="Of the loaders, separated by commas. [1,4,8,16]")
@click.option("--samples", type=click.IntRange(1), help="Of the loaders' and the train part's data sets. [50,000]")
@click.option("--rounds", type=click.IntRange(1), help="That medians of models and loaders are of. [5]")
@click.option("--epochs", type=click.IntRange(1), help="Of the accuracy part. [100]")
@click.option("--table", "only_table", is_flag=True, help="Measure nothing, print the table.")
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

    from imgtool.bench.gpu import loaders, model, others, record, table, trainings
    from imgtool.bench.gpu.plan import REHEARSAL, Plan, Scale
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
    where = resolve_device(device)
    if device is None and where.type != "cuda":
        raise click.UsageError("torch sees no CUDA GPU here; --device cpu rehearses every step")
    if rehearse and where.type != "cpu":
        raise click.UsageError("a rehearsal is on the CPU: give --rehearse or --device, not both")
    if cuda := where.type == "cuda":
        torch.cuda.set_device(where)
    scale = replace(Scale() if cuda else REHEARSAL, **{key: value for key, value in chosen.items() if value})
    if scale.samples < scale.loader_batch:
        raise click.UsageError(f"--samples: the loaders make batches of {scale.loader_batch}, give at least so many")
    out = out or (Path("docs/results") if cuda else work / "rehearsal")
    plan = Plan(where, out, work, src, tiny, limit_seconds, again, commit or record.commit(), scale)
    work.mkdir(parents=True, exist_ok=True)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)  # so that a child is told to stop, too

    before = signal.signal(signal.SIGTERM, interrupt)
    troubles: list[str] = []
    try:
        for part in only or [part for part in PARTS if part != "accuracy" or tiny]:
            click.echo(f"== {part}")
            troubles += _measure(record.Record(part, plan), plan, measures[part][0])
    finally:
        signal.signal(signal.SIGTERM, before)
    click.echo()
    click.echo(table.table(out, rows))
    if troubles:
        raise click.ClickException("; ".join(troubles))


def _measure(record: Any, plan: Any, measure: Callable[..., None]) -> list[str]:
    """A part; what went wrong in it is told when the others have had their turn."""
    from imgtool.bench.gpu.record import OutOfTime
    from imgtool.wordnet.errors import ImgtoolError

    try:
        measure(plan, record)
    except OutOfTime:
        click.echo("its time is over: the same command goes on behind what is measured")
        return list(record.troubles)
    except ImgtoolError as error:
        return [*record.troubles, str(error)]
    record.finish()
    return list(record.troubles)
