"""imgtool predict"""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("pictures", nargs=-1, required=True)
@click.option("--weights", required=True, help="Checkpoint, or run directory (its best epoch).")
@click.option("--topk", type=click.IntRange(1), default=5, show_default=True, help="Classes to show a picture.")
@click.option("--imgsz", type=click.IntRange(32), help="Side of the pictures in pixels. [the checkpoint's]")
@click.option("--device", help="auto, cpu, cuda or cuda:N. [auto]")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
@click.pass_context
def predict(
    ctx: click.Context,
    pictures: tuple[str, ...],
    weights: str,
    topk: int,
    imgsz: int | None,
    device: str | None,
    as_json: bool,
) -> None:
    """The most probable classes of PICTURES: files, or folders of them."""
    from imgtool.training.classifier import Classifier
    from imgtool.wordnet.errors import ImageError

    bad: list[ImageError] = []
    found_all = Classifier(weights).predict(list(pictures), topk=topk, imgsz=imgsz, device=device, on_error=bad.append)
    for found in found_all:
        if as_json:
            click.echo(json.dumps(found.to_dict()))
            continue
        click.echo(found.path)
        for probability, wnid, name in zip(found.probabilities, found.wnids, found.names, strict=True):
            click.echo(f"  {probability:7.2%}  {wnid}  {name}")
    for error in bad:
        click.echo(f"imgtool: {error}", err=True)
    if bad:
        ctx.exit(ImageError.exit_code)
