"""imgtool export"""

from __future__ import annotations

import json

import click

from imgtool.option_groups import GroupedCommand, option_group
from imgtool.training.export.formats import SUFFIXES

OUTPUT, NETWORK, CHECK = map(option_group, ("Output", "Network", "Calibration and check"))


@click.command(cls=GroupedCommand)
@click.argument("weights")
@OUTPUT(
    "--format",
    "form",
    type=click.Choice(list(SUFFIXES)),
    default="onnx",
    show_default=True,
    help="File format to write.",
)
@OUTPUT("--out", show_default="beside WEIGHTS", help="File to write. Some formats write a second file beside it.")
@OUTPUT("--json", "as_json", is_flag=True, help="Print the files written and the result of the check as JSON.")
@NETWORK(
    "--imgsz", type=click.IntRange(32), show_default="the checkpoint's", help="Side of the square input, in pixels."
)
@NETWORK("--batch", type=click.IntRange(1), show_default="any", help="Fix the batch size.")
@NETWORK("--half", is_flag=True, help="Compute in float16; inputs and outputs stay float32.")
@NETWORK("--int8", is_flag=True, help="Quantise to 8-bit integers (onnx only); needs --calibrate.")
@NETWORK(
    "--with-preprocess",
    is_flag=True,
    help="Include the validation transform and the softmax: uint8 images [N, H, W, 3] of any size in, "
    "probabilities out.",
)
@CHECK("--calibrate", metavar="DATA", help="Prepared or raw data set to measure the ranges of --int8 on.")
@CHECK("--data", show_default="the run's, or data/imagenet", help="Data set to check the exported model on.")
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
    """Export a trained model for other programs.

    WEIGHTS is a checkpoint or a run directory.

    Batch norms are folded into the convolutions; classes, names, transform and metrics are stored in the file. Before
    the file is kept it is checked against the checkpoint on real images. If it differs it is kept as NAME.failed, and
    the exit code is 1. `imgtool predict` and `imgtool val` take onnx, openvino, torchscript and tensorrt files as
    --weights. They do not take torch-export, nor ultralytics-state, which holds only the weights and is not checked.
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
