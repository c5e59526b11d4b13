"""imgtool predict"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

import click

from imgtool.option_groups import GroupedCommand, option_group

if TYPE_CHECKING:
    from imgtool.training.evaluation.predict import Prediction

COLUMNS = ("path", "rank", "wnid", "name", "superclass", "probability")


MODEL, INPUT, OUTPUT, HARDWARE = map(option_group, ("Model", "Input", "Output", "Hardware and speed"))


@click.command(cls=GroupedCommand)
@click.argument("images", nargs=-1)
@MODEL("--weights", required=True, help="Checkpoint, run directory (its best epoch is used), or exported model.")
@MODEL("--imgsz", type=click.IntRange(32), show_default="the checkpoint's", help="Side of the square input, in pixels.")
@INPUT("--list", "list_", metavar="FILE", help="File with one image path per line; - is standard input.")
@OUTPUT("--topk", type=click.IntRange(1), default=5, show_default=True, help="Number of classes per image.")
@OUTPUT("--json", "as_json", is_flag=True, help="Print one JSON object per line and image.")
@OUTPUT("--csv", "csv_", metavar="FILE", help="Write a CSV file, one row per image and class; - is standard output.")
@HARDWARE("--device", show_default="auto", help="Where to compute: auto, cpu, cuda or cuda:N.")
@HARDWARE("--batch", type=click.IntRange(1), default=64, show_default=True, help="Images per batch.")
@HARDWARE(
    "--workers",
    type=click.IntRange(1),
    show_default="the number of cores",
    help="Number of threads that read and decode images.",
)
@HARDWARE(
    "--threads",
    type=click.IntRange(1),
    show_default="the number of cores",
    help="Number of threads that run the network on a CPU.",
)
@click.pass_context
def predict(
    ctx: click.Context,
    images: tuple[str, ...],
    weights: str,
    list_: str | None,
    topk: int,
    imgsz: int | None,
    batch: int,
    workers: int | None,
    threads: int | None,
    device: str | None,
    as_json: bool,
    csv_: str | None,
) -> None:
    """Predict the most probable classes of IMAGES.

    IMAGES are files, folders, patterns in quotes ('images/**/*.jpg'), fsspec URLs (s3://…, zip://*.jpg::a.zip), or -
    for an image on standard input. An image that cannot be read is reported on standard error and makes the exit code
    2. The brackets after a class name hold its superclass.
    """
    from imgtool.training.classifier import Classifier
    from imgtool.wordnet.errors import ImageError

    if not images and list_ is None:
        raise click.UsageError("no images: give IMAGES, or a file that lists them with --list")
    if as_json and csv_:
        raise click.UsageError("give --json or --csv, not both")
    if list_ == "-" and "-" in images:
        raise click.UsageError("standard input cannot be both an image and the --list")
    bad = 0

    def report(error: ImageError) -> None:
        nonlocal bad
        bad += 1
        click.echo(f"imgtool: {error}", err=True)

    with ExitStack() as stack:
        source = [*images, *([] if list_ is None else [_named(stack.enter_context(_opened(list_)))])]
        show: Callable[[Prediction], None] = _as_json if as_json else _as_text
        if csv_ is not None:
            show = _as_csv(sys.stdout if csv_ == "-" else stack.enter_context(_opened(csv_, "w")))
        predictions = Classifier(weights, device, threads).predict_each(
            source, topk, imgsz, device, batch=batch, workers=workers, on_error=report
        )
        count = 0
        for count, found in enumerate(predictions, 1):  # noqa: B007  (the last count is wanted)
            show(found)
    if bad > 1:
        click.echo(f"imgtool: {bad:,} of {bad + count:,} images could not be read", err=True)
    if csv_ not in (None, "-"):
        click.echo(f"{count:,} images, {csv_}")
    if bad:
        ctx.exit(ImageError.exit_code)


def _opened(path: str, mode: str = "r") -> Any:
    """Opens a text file; "-" is standard input or output."""
    try:
        return click.open_file(path, mode, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None


def _named(lines: IO[str]) -> Iterator[Any]:
    """Yields the image files that the lines name. A missing file is reported like a damaged one."""
    from imgtool.pipelines.sources.image_files import ImageFile

    for line in lines:
        if name := line.rstrip("\r\n"):
            yield ImageFile(name)


def _rows(found: Prediction) -> Iterator[tuple[str, str, str, float]]:
    return zip(found.wnids, found.names, found.superclasses, found.probabilities, strict=True)


def _as_text(found: Prediction) -> None:
    click.echo(found.path)
    for wnid, name, superclass, probability in _rows(found):
        click.echo(f"  {probability:7.2%}  {wnid}  {name}" + (f"  [{superclass}]" if superclass else ""))


def _as_json(found: Prediction) -> None:
    click.echo(json.dumps(found.to_dict()))


def _as_csv(file: IO[str]) -> Callable[[Prediction], None]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)

    def show(found: Prediction) -> None:
        for rank, (wnid, name, superclass, probability) in enumerate(_rows(found), 1):
            writer.writerow((found.path, rank, wnid, name, superclass, f"{probability:.6f}"))

    return show
