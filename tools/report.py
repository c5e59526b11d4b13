"""imgtool report"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run")
@click.option("--out", help="The page's file. [report.html in the run]")
def report(run: str, out: str | None) -> None:
    """All of a run on one self-contained HTML page: curves, epochs, confusions, mistakes, batches, recipe.

    RUN is a name under runs/, or a path; it may still be training.
    """
    from imgtool.training.runs.report import write_report

    click.echo(write_report(run, Path(out) if out else None))
