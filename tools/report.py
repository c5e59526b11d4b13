"""imgtool report"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run")
@click.option("--out", show_default="report.html in the run", help="HTML file to write.")
def report(run: str, out: str | None) -> None:
    """Write an HTML page about a training run.

    The page is self-contained: curves, epochs, confusions, mistakes, batches and recipe. RUN is a name under runs/, or
    a path. The run may still be training.
    """
    from imgtool.training.runs.report import write_report

    click.echo(write_report(run, Path(out) if out else None))
