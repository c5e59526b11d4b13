"""Benchmarks, one module per claim: a peer and imgtool in one run, medians of several rounds, raw numbers as JSON.

``imgtool bench NAME`` runs one of them; ``--rehearse`` takes every step of it in seconds. Each module has a click
command ``main``.
"""

from __future__ import annotations

import importlib

import click

CLAIMS = {
    "gpu": "on a GPU, training is limited by the model, and the model's step by memory bandwidth",
    "inference": "an exported model is at least as fast as Ultralytics' export of the same weights",
    "learning": "a few epochs on a CPU learn real images",
    "loader": "loads random crops from JPEG at least twice as fast as FFCV",
    "prepare": "recodes images at least twice as fast as FFCV's writer",
    "stores": "disk space and loading speed of each way to store images",
    "train": "an epoch takes at most half of Ultralytics' time, with at least its accuracy",
    "wordnet": "the hierarchy loads in milliseconds and answers for whole arrays",
}


class Claims(click.Group):
    """The benchmarks as subcommands. A module is imported only when its command or its help is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(CLAIMS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in CLAIMS:
            return None
        command: click.Command = importlib.import_module(f"imgtool.bench.{name}").main
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Claims"):
            formatter.write_dl(list(CLAIMS.items()))


@click.group(cls=Claims)
def bench() -> None:
    """Measure a claim on this machine, next to the library that it compares with."""
