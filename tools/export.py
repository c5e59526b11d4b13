"""imgtool export"""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("weights")
@click.option("--format", "form", required=True, help="ultralytics-state: a state_dict for their ClassificationModel.")
@click.option("--out", required=True, help="File to write; more beside it as the format needs.")
@click.option("--json", "as_json", is_flag=True, help="Print the names of the files as JSON.")
def export(weights: str, form: str, out: str, as_json: bool) -> None:
    """Write the model of WEIGHTS, a checkpoint or a run directory, for other programs."""
    from imgtool.training.classifier import Classifier
    from imgtool.training.export import export as write

    written = [str(path) for path in write(Classifier(weights), form, out)]
    click.echo(json.dumps({"format": form, "files": written}) if as_json else "\n".join(written))
