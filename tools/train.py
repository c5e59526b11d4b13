"""imgtool train"""

from __future__ import annotations

import json
import os
from typing import Any

import click

ARGUMENTS = "imgtool.arguments"  # in click's ctx.meta: what follows `imgtool` on the command line


@click.command()
@click.option("--size", type=click.Choice(list("nsmlx")), help="Size of the model: n, s, m, l, x. [n]")
@click.option("--arch", help="Another network instead: timm:resnet50, torchvision:resnet18.")
@click.option("--data", default="data/imagenet", show_default=True, help="Prepared data set.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the training split. [the recipe's, 100]")
@click.option("--imgsz", type=click.IntRange(32), help="Side of the training images in pixels. [the recipe's]")
@click.option("--batch", type=click.IntRange(1), help="Samples a step; the learning rate follows. [the recipe's]")
@click.option("--recipe", help="A size's recipe, ultralytics, or a TOML file. [the size's; s for --arch]")
@click.option("--accumulate", type=click.IntRange(1), help="Parts that a batch is computed in, to save memory. [1]")
@click.option("--clip", type=click.FloatRange(0), help="Largest norm of a step's gradient; 0: any. [the recipe's, 0]")
@click.option("--loss", help="ce, soft, hxe or wordtree, options as in hxe:alpha=0.2. [the recipe's, ce]")
@click.option("--labelmap", help="Gather the data set's classes into the targets of this label map (JSON).")
@click.option("--weights", help="Start from this checkpoint or run instead of random weights.")
@click.option("--device", help="auto, cpu, cuda or cuda:N. [auto]")
@click.option("--gpus", type=click.IntRange(1), help="Processes, one a GPU, that share each batch. [1]")
@click.option(
    "--restarts", type=click.IntRange(0), default=3, show_default=True, help="With --gpus: how often dead ones."
)
@click.option("--sync-bn", is_flag=True, help="Batch norm over the batches of all processes.")
@click.option("--precision", default="auto", show_default=True, help="auto, bf16, fp16 or fp32.")
@click.option("--compile/--no-compile", default=True, show_default=True, help="Through torch.compile, on CUDA.")
@click.option(
    "--on-nan",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="A loss that is no number: stop, or leave the step out and count.",
)
@click.option("--save-steps", type=click.IntRange(0), default=0, help="A checkpoint every N steps too. [each epoch]")
@click.option("--keep", type=click.IntRange(1), default=2, show_default=True, help="Latest checkpoints kept.")
@click.option("--profile", is_flag=True, help="Trace 20 steps, and say what they wait for.")
@click.option("--workers", type=click.IntRange(1), help="Loader threads. [this machine's cores]")
@click.option("--backend", default="auto", show_default=True, help="Loader: native, ffcv, dali or torchvision.")
@click.option("--order", default="random", show_default=True, help="Of the samples: random, or quasi for slow disks.")
@click.option("--on-error", default="raise", show_default=True, help="A damaged sample: raise, or skip and count.")
@click.option("--logger", multiple=True, help="Log to tensorboard or wandb too; may be given twice. [none]")
@click.option("--no-plots", is_flag=True, help="Do not draw curves, confusion matrix and mistakes at the end.")
@click.option("--seed", type=int, help="Of initial weights, order and crops. [0]")
@click.option("--name", help="The run: a name under runs/, or a path. [train, train2, …]")
@click.option("--resume", is_flag=True, help="Continue the run --name (or the latest) behind the last step it saved.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def train(
    ctx: click.Context,
    size: str | None,
    arch: str | None,
    weights: str | None,
    data: str,
    gpus: int | None,
    restarts: int,
    no_plots: bool,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a classifier on a prepared data set.

    Leaves a run directory with checkpoints, results.csv, the log, and all that is needed to repeat the run.
    """
    if sum(map(bool, (size, arch, weights))) > 1:
        raise click.UsageError("--size, --arch and --weights each say which network: give one of them")
    if gpus and gpus > 1 and "RANK" not in os.environ:
        from imgtool.training.parallel.launch import launch

        ctx.exit(launch(ctx.meta[ARGUMENTS], gpus, restarts, options["device"]))
    from imgtool.training.classifier import Classifier
    from imgtool.training.models.registry import is_arch

    if arch and not is_arch(arch):
        raise click.UsageError(f"--arch {arch!r}: give timm:NAME or torchvision:NAME")
    data_given = ctx.get_parameter_source("data") is not click.core.ParameterSource.DEFAULT
    model = Classifier(weights or arch or size or "n")
    source = None if resume and not data_given else data
    argv = ["imgtool", *ctx.meta[ARGUMENTS]]
    results = model.train(source, resume=resume, plots=not no_plots, argv=argv, **options)
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        click.echo(json.dumps(results.to_dict()))
        return
    m = results.metrics
    click.echo(f"best of {results.epochs} epochs: top-1 {m.top1:.2%}, top-5 {m.top5:.2%} on {m.images:,} images")
    click.echo(f"{results.run}: weights/best.pt, weights/last.pt, results.csv, run.json, log.txt")
