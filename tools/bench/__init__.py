"""Benchmarks, one module a claim: peer and ours in one run, medians of several rounds, raw numbers as JSON.

``imgtool bench NAME`` runs one, ``--rehearse`` every step of it in seconds. A module has a click command ``main``.
"""

from __future__ import annotations

import importlib

import click

CLAIMS = {
    "gpu": "on a GPU training is bound by the model, and its step by memory",
    "inference": "an exported model is at least as fast as Ultralytics' export of the same weights",
    "learning": "a few epochs on the CPU learn real images",
    "loader": "crops from JPEG reach the batch at least twice as fast as through FFCV",
    "prepare": "images are recoded at least twice as fast as by FFCV's writer",
    "stores": "what each stored form costs on disk and brings in loading",
    "train": "an epoch takes at most half of Ultralytics' time, and learns as much",
    "wordnet": "the hierarchy starts in milliseconds and answers in arrays",
}


class Claims(click.Group):
    """The benchmarks as subcommands; a module is imported when it is asked for, help included."""

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
    """Measure a claim on this machine, side by side with the peer it is about."""
