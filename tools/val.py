"""imgtool val"""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--weights", required=True, help="Checkpoint, run directory (its best epoch), or exported model.")
@click.option(
    "--data", default="data/imagenet", show_default=True, help="Prepared data set, or a raw one (class folders)."
)
@click.option("--split", default="val", show_default=True, help="Split of the data set.")
@click.option("--imgsz", type=click.IntRange(32), help="Side of the images in pixels. [the checkpoint's]")
@click.option("--batch", type=click.IntRange(1), help="Samples at a time. [256]")
@click.option("--device", help="auto, cpu, cuda or cuda:N. [auto]")
@click.option("--workers", type=click.IntRange(1), help="Loader threads. [this machine's cores]")
@click.option("--backend", default="auto", show_default=True, help="Loader: native, ffcv, dali or torchvision.")
@click.option("--labelmap", help="Gather the classes into the targets of this label map (JSON).")
@click.option("--real", help="real.json, for ReaL accuracy on ILSVRC2012's validation images.")
@click.option("--all-classes", is_flag=True, help="Choose among all of the checkpoint's classes, not the data's alone.")
@click.option(
    "--per-class",
    metavar="FILE",
    help="Write a CSV file, one line per class: counts, accuracy, and what it is taken for.",
)
@click.option("--plots", help="Folder for confusion matrix, most confused pairs and surest mistakes.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, conventions included.")
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
    """Top-1, top-5, loss and hierarchical metrics of a checkpoint on a data set.

    --data is a prepared data set, or a raw one as it lies: a folder of class folders or a tar of it (ImageNet-A, -R,
    -V2). If it has only some of the checkpoint's classes, the answer is chosen among these alone.
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
            f"  among the {metrics.classes:,} classes of the data, of the checkpoint's {len(classifier.wnids):,} "
            "(--all-classes: among all)"
        )
    for name, metric in (metrics.hierarchy or {}).items():
        if name not in ("top1", "top5"):
            values = metric.value if isinstance(metric.value, tuple) else (metric.value,)
            click.echo(f"  {name:24} {' '.join(f'{value:.4f}' for value in values)}")
    if metrics.hierarchy:
        click.echo("  (--json says by which convention each is measured)")
    if per_class is not None:
        click.echo(f"  class by class: {per_class}")
