"""imgtool export"""

from __future__ import annotations

import json

import click

from imgtool.training.export.formats import SUFFIXES


@click.command()
@click.argument("weights")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(SUFFIXES)),
    default="onnx",
    show_default=True,
    help="What program it is for.",
)
@click.option("--out", help="File to write; more beside it as the format needs. [beside WEIGHTS]")
@click.option("--imgsz", type=click.IntRange(32), help="Side of the images in pixels. [the checkpoint's]")
@click.option("--batch", type=click.IntRange(1), help="Images at a time, fixed. [any number]")
@click.option("--half", is_flag=True, help="Compute in float16 inside; what goes in and comes out stays float32.")
@click.option(
    "--with-preprocess",
    is_flag=True,
    help="Take uint8 images [N, H, W, 3] of any size, give probabilities: validation transform and softmax inside.",
)
@click.option("--int8", is_flag=True, help="Quantise to 8-bit integers (onnx); needs --calibrate.")
@click.option("--calibrate", metavar="DATA", help="Data set, prepared or raw, whose images set the ranges of --int8.")
@click.option("--data", help="Data set to check the export on. [the run's, or data/imagenet]")
@click.option("--json", "as_json", is_flag=True, help="Print what was written and the check as JSON.")
def export(
    weights: str,
    form: str,
    out: str | None,
    imgsz: int | None,
    batch: int | None,
    half: bool,
    with_preprocess: bool,
    int8: bool,
    calibrate: str | None,
    data: str | None,
    as_json: bool,
) -> None:
    """Write the model of WEIGHTS, a checkpoint or a run directory, for other programs.

    Batch norms are folded. Classes, names, transform and metrics go into the file. It is checked against the
    checkpoint on real images before it is kept; one that differs is kept as NAME.failed, and the exit code is 1.
    `imgtool predict` and `imgtool val` take the files of onnx, openvino, torchscript and tensorrt as --weights.
    ultralytics-state, which holds the weights alone, is neither checked nor taken; torch-export is not taken.
    """
    from imgtool.training.classifier import Classifier

    written = Classifier(weights).export(
        form,
        out,
        imgsz=imgsz,
        batch=batch,
        half=half,
        with_preprocess=with_preprocess,
        int8=int8,
        calibrate=calibrate,
        data=data,
    )
    if as_json:
        click.echo(json.dumps(written.to_dict()))
        return
    for path in written.files:
        click.echo(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    if written.calibration:
        click.echo(f"calibrated on {written.calibration} images")
    if written.check is not None:
        click.echo(f"checked: {written.check}")
