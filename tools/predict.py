"""imgtool predict"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imgtool.training.evaluation.predict import Prediction

COLUMNS = ("path", "rank", "wnid", "name", "superclass", "probability")


@click.command()
@click.argument("images", nargs=-1)
@click.option("--weights", required=True, help="Checkpoint, run directory (its best epoch), or exported model.")
@click.option("--list", "list_", metavar="FILE", help="A file that names images, one a line; - is standard input.")
@click.option("--topk", type=click.IntRange(1), default=5, show_default=True, help="Classes to show an image.")
@click.option("--imgsz", type=click.IntRange(32), help="Side of the images in pixels. [the checkpoint's]")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Images at a time.")
@click.option("--workers", type=click.IntRange(1), help="Threads that read and decode. [this machine's cores]")
@click.option("--threads", type=click.IntRange(1), help="Threads that compute, on a CPU. [this machine's cores]")
@click.option("--device", help="auto, cpu, cuda or cuda:N. [auto]")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object an image, each on its line.")
@click.option(
    "--csv", "csv_", metavar="FILE", help="Write a CSV file instead, one line per class; - is standard output."
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
    """The most probable classes of IMAGES.

    These are files, folders, patterns in quotes ('images/**/*.jpg'), URLs of any fsspec kind (s3://…,
    zip://*.jpg::a.zip), or - for an image on standard input. What cannot be read is told on standard error, and the
    exit code is then 2. In brackets behind a class: what kind of thing it is.
    """
    from imgtool.training.classifier import Classifier
    from imgtool.wordnet.errors import ImageError

    if not images and list_ is None:
        raise click.UsageError("give IMAGES, or --list a file that names them")
    if as_json and csv_:
        raise click.UsageError("--json or --csv, not both")
    if list_ == "-" and "-" in images:
        raise click.UsageError("standard input cannot be an image and the --list at once")
    bad = 0

    def tell(error: ImageError) -> None:
        nonlocal bad
        bad += 1
        click.echo(f"imgtool: {error}", err=True)

    with ExitStack() as stack:
        source = [*images, *([] if list_ is None else [_named(stack.enter_context(_opened(list_)))])]
        show: Callable[[Prediction], None] = _as_json if as_json else _as_text
        if csv_ is not None:
            show = _as_csv(sys.stdout if csv_ == "-" else stack.enter_context(_opened(csv_, "w")))
        predictions = Classifier(weights, device, threads).predict_each(
            source, topk, imgsz, device, batch=batch, workers=workers, on_error=tell
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
    """A text file, or standard input for "-" to read."""
    try:
        return click.open_file(path, mode, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None


def _named(lines: IO[str]) -> Iterator[Any]:
    """The files that the lines name: each one image, so one that is missing is told like one that is damaged."""
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
