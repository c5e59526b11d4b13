"""imgtool val"""

from __future__ import annotations

import json

import click

from imgtool.option_groups import GroupedCommand, backend_option, option_group

MODEL, DATA, OUTPUT, HARDWARE = map(option_group, ("Model", "Data", "Output", "Hardware and speed"))


@click.command(cls=GroupedCommand)
@MODEL("--weights", required=True, help="Checkpoint, run directory (its best epoch is used), or exported model.")
@MODEL("--imgsz", type=click.IntRange(32), show_default="the checkpoint's", help="Side of the square input, in pixels.")
@DATA("--data", default="data/imagenet", show_default=True, help="Prepared data set, or a raw one (class folders).")
@DATA("--split", default="val", show_default=True, help="Split of the data set.")
@DATA("--labelmap", help="Label map (JSON file): score its targets instead of the data set's classes.")
@DATA("--real", help="Path of real.json: also compute ReaL accuracy on ILSVRC2012's validation images.")
@DATA("--all-classes", is_flag=True, help="Predict among all classes of the checkpoint, not only those of the data.")
@OUTPUT(
    "--per-class", metavar="FILE", help="Write a CSV file with one row per class: counts, accuracy, main confusion."
)
@OUTPUT(
    "--plots", metavar="FOLDER", help="Write the confusion matrix, the most confused pairs and the surest mistakes."
)
@OUTPUT("--json", "as_json", is_flag=True, help="Print the metrics as JSON, with the convention of each.")
@HARDWARE("--device", show_default="auto", help="Where to compute: auto, cpu, cuda or cuda:N.")
@HARDWARE("--batch", type=click.IntRange(1), show_default="256", help="Images per batch.")
@HARDWARE("--workers", type=click.IntRange(1), show_default="the number of cores", help="Number of loader threads.")
@backend_option(HARDWARE)
def val(
    weights: str,
    data: str,
    split: str,
    imgsz: int | None,
    batch: int | None,
    device: str | None,
    workers: int | None,
    backend: str,
    labelmap: str | None,
    real: str | None,
    all_classes: bool,
    per_class: str | None,
    plots: str | None,
    as_json: bool,
) -> None:
    """Measure the accuracy of a checkpoint on a data set.

    Prints top-1, top-5, loss and, for classes of WordNet, the hierarchical metrics.

    The data set is prepared, or raw: a folder of class folders, or a tar of it (ImageNet-A, -R, -V2). If it has only
    some of the checkpoint's classes, predictions are restricted to these.
    """
    from imgtool.training.classifier import Classifier

    classifier = Classifier(weights, device)
    metrics = classifier.val(
        data,
        batch=batch,
        imgsz=imgsz,
        device=device,
        workers=workers,
        backend=backend,
        split=split,
        labelmap=labelmap,
        real=real,
        all_classes=all_classes,
        per_class=per_class,
        plots=plots,
    )
    if as_json:
        click.echo(json.dumps(metrics.to_dict()))
        return
    click.echo(
        f"top-1 {metrics.top1:.2%}  top-5 {metrics.top5:.2%}  loss {metrics.loss:.4f}  on {metrics.images:,} images "
        f"of {data} ({split}), {metrics.images / metrics.seconds:,.0f} img/s"
    )
    if metrics.classes is not None and labelmap is None and metrics.classes < len(classifier.wnids):
        click.echo(
            f"  restricted to the data's {metrics.classes:,} of the checkpoint's {len(classifier.wnids):,} classes "
            "(--all-classes: not restricted)"
        )
    for name, metric in (metrics.hierarchy or {}).items():
        if name not in ("top1", "top5"):
            values = metric.value if isinstance(metric.value, tuple) else (metric.value,)
            click.echo(f"  {name:24} {' '.join(f'{value:.4f}' for value in values)}")
    if metrics.hierarchy:
        click.echo("  (--json states the convention of each metric)")
    if per_class is not None:
        click.echo(f"  per class: {per_class}")
