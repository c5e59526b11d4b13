"""imgtool train"""

from __future__ import annotations

import json
import os
from typing import Any

import click

from imgtool.option_groups import GroupedCommand, backend_option, option_group

ARGUMENTS = "imgtool.arguments"  # in click's ctx.meta: what follows `imgtool` on the command line

MODEL, DATA, RECIPE, RUN, HARDWARE = map(option_group, ("Model", "Data", "Recipe", "Run", "Hardware and speed"))


@click.command(cls=GroupedCommand)
@MODEL("--size", type=click.Choice(list("nsmlx")), show_default="n", help="Size of the YOLOv8-cls network.")
@MODEL("--arch", help="Train another library's network instead, for example timm:resnet50 or torchvision:resnet18.")
@MODEL("--weights", help="Start from this checkpoint or run instead of random weights.")
@MODEL(
    "--loss", show_default="the recipe's, ce", help="ce, soft, hxe or wordtree; options follow a colon: hxe:alpha=0.2."
)
@DATA("--data", default="data/imagenet", show_default=True, help="Folder of a prepared data set.")
@DATA("--labelmap", help="Label map (JSON file): train on its targets instead of the data set's classes.")
@DATA(
    "--order",
    type=click.Choice(["random", "quasi"]),
    default="random",
    show_default=True,
    help="Sample order: random, or quasi-random for slow disks.",
)
@DATA(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="What to do with a damaged sample: raise stops the run, skip leaves the sample out and counts it.",
)
@DATA(
    "--val-split",
    metavar="NAME",
    show_default="val",
    help="Split to measure after each epoch, for a data set without val: minival, test or train.",
)
@RECIPE(
    "--recipe",
    show_default="the size's; s for --arch",
    help="A size's recipe (n to x), ultralytics, or a TOML file with all settings (docs/training.md).",
)
@RECIPE("--epochs", type=click.IntRange(1), show_default="the recipe's, 100", help="Passes over the training split.")
@RECIPE("--imgsz", type=click.IntRange(32), show_default="the recipe's", help="Side of the square input, in pixels.")
@RECIPE(
    "--batch",
    type=click.IntRange(1),
    show_default="the recipe's",
    help="Samples per step, over all GPUs. The learning rate is scaled in proportion.",
)
@RECIPE(
    "--accumulate",
    type=click.IntRange(1),
    show_default="1",
    help="Split each batch into this many parts, computed one after the other, to save memory.",
)
@RECIPE(
    "--clip",
    type=click.FloatRange(0),
    show_default="the recipe's, 0",
    help="Clip the gradient of each step to this norm; 0 does not clip.",
)
@RECIPE("--seed", type=int, show_default="0", help="Seed of initial weights, sample order, crops and augmentation.")
@RUN("--name", show_default="train, train2, …", help="Run directory: a name under runs/, or a path.")
@RUN("--resume", is_flag=True, help="Continue the run --name, or the latest run, after the last step that it saved.")
@RUN("--save-steps", type=click.IntRange(0), default=0, help="Save a checkpoint every N steps as well as every epoch.")
@RUN("--keep", type=click.IntRange(1), default=2, show_default=True, help="Number of latest checkpoints to keep.")
@RUN(
    "--on-nan",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="On a NaN or infinite loss: stop the run, or skip the step and count it.",
)
@RUN("--logger", multiple=True, help="Also log to tensorboard or wandb. May be repeated.")
@RUN("--no-plots", is_flag=True, help="Do not draw curves, confusion matrix and mistakes at the end.")
@RUN("--profile", is_flag=True, help="Trace 20 steps and report what limits the speed.")
@RUN("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@HARDWARE("--device", show_default="auto", help="Where to train: auto, cpu, cuda or cuda:N.")
@HARDWARE(
    "--gpus", type=click.IntRange(1), show_default="1", help="Number of processes, one per GPU, that share each batch."
)
@HARDWARE(
    "--restarts",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="With --gpus: how often to restart from the last checkpoint when a process dies.",
)
@HARDWARE("--sync-bn", is_flag=True, help="Compute batch norm statistics over the batches of all processes.")
@HARDWARE(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp16", "fp32"]),
    default="auto",
    show_default=True,
    help="Precision of convolutions and matrix products. auto: bf16 on GPUs that have it, else fp32.",
)
@HARDWARE("--compile/--no-compile", default=True, show_default=True, help="Use torch.compile, on CUDA only.")
@HARDWARE("--workers", type=click.IntRange(1), show_default="the number of cores", help="Number of loader threads.")
@backend_option(HARDWARE)
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

    Writes a run directory with checkpoints, results.csv, the log, and everything needed to repeat the run.
    """
    if sum(map(bool, (size, arch, weights))) > 1:
        raise click.UsageError("--size, --arch and --weights each choose the network: give only one of them")
    if gpus and gpus > 1 and "RANK" not in os.environ:
        from imgtool.training.parallel.launch import launch

        ctx.exit(launch(ctx.meta[ARGUMENTS], gpus, restarts, options["device"]))
    from imgtool.training.classifier import Classifier
    from imgtool.training.models.registry import is_arch

    if arch and not is_arch(arch):
        raise click.UsageError(f"--arch {arch!r} is not a network: give timm:NAME or torchvision:NAME")
    if resume and (size or arch):
        check_network(options["name"], size or arch)
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


def check_network(name: str | None, network: str | None) -> None:
    """Raises InputError if the run to resume is of another network."""
    from imgtool.training.runs.run import Run
    from imgtool.wordnet.errors import InputError

    run = Run.reopen(name)
    started = run.read_settings("size")["size"]
    if network != started:
        raise InputError(f"cannot resume {run.path} with {network}: the run was started with {started}")
