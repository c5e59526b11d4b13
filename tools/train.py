"""imgtool train"""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--size", type=click.Choice(list("nsmlx")), help="Size of the model: n, s, m, l, x. [n]")
@click.option("--data", default="data/imagenet", show_default=True, help="Prepared data set.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the training split. [the recipe's, 100]")
@click.option("--imgsz", type=click.IntRange(32), help="Side of the training pictures in pixels. [the recipe's]")
@click.option("--batch", type=click.IntRange(1), help="Samples a step; the learning rate follows. [the recipe's]")
@click.option("--recipe", help="A size's recipe, or a TOML file. [the size's]")
@click.option("--loss", help="ce, soft, hxe or wordtree, options as in hxe:alpha=0.2. [the recipe's, ce]")
@click.option("--labelmap", help="Gather the data set's classes into the targets of this label map (JSON).")
@click.option("--weights", help="Start from this checkpoint or run instead of random weights.")
@click.option("--device", help="auto, cpu, cuda or cuda:N. [auto]")
@click.option("--workers", type=click.IntRange(1), help="Loader threads. [this machine's cores]")
@click.option("--backend", default="auto", show_default=True, help="Loader: native, ffcv, dali or torchvision.")
@click.option("--order", default="random", show_default=True, help="Of the samples: random, or quasi for slow disks.")
@click.option("--on-error", default="raise", show_default=True, help="A damaged sample: raise, or skip and count.")
@click.option("--logger", multiple=True, help="Log to tensorboard or wandb too; may be given twice. [none]")
@click.option("--no-plots", is_flag=True, help="Do not draw curves, confusion matrix and mistakes at the end.")
@click.option("--seed", type=int, help="Of initial weights, order and crops. [0]")
@click.option("--name", help="The run: a name under runs/, or a path. [train, train2, …]")
@click.option("--resume", is_flag=True, help="Continue the run --name (or the latest) after its last whole epoch.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def train(
    ctx: click.Context,
    size: str | None,
    data: str,
    epochs: int | None,
    imgsz: int | None,
    batch: int | None,
    recipe: str | None,
    loss: str | None,
    labelmap: str | None,
    weights: str | None,
    device: str | None,
    workers: int | None,
    backend: str,
    order: str,
    on_error: str,
    logger: tuple[str, ...],
    no_plots: bool,
    seed: int | None,
    name: str | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Train a classifier on a prepared data set.

    Leaves a run directory with checkpoints, results.csv, the log, and all that is needed to repeat the run.
    """
    from imgtool.training.classifier import Classifier

    if size and weights:
        raise click.UsageError("--weights brings its own size: give --size or --weights, not both")
    data_given = ctx.get_parameter_source("data") is not click.core.ParameterSource.DEFAULT
    results = Classifier(weights or size or "n").train(
        data=None if resume and not data_given else data,
        epochs=epochs,
        batch=batch,
        imgsz=imgsz,
        device=device,
        workers=workers,
        backend=backend,
        order=order,
        on_error=on_error,
        logger=logger,
        plots=not no_plots,
        seed=seed,
        name=name,
        resume=resume,
        recipe=recipe,
        loss=loss,
        labelmap=labelmap,
    )
    if as_json:
        click.echo(json.dumps(results.to_dict()))
        return
    m = results.metrics
    click.echo(f"best of {results.epochs} epochs: top-1 {m.top1:.2%}, top-5 {m.top5:.2%} on {m.images:,} images")
    click.echo(f"{results.run}: weights/best.pt, weights/last.pt, results.csv, run.json, log.txt")
