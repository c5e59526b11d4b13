"""The command line. Each command is a separate module, which imports what it needs only when it runs."""

from __future__ import annotations

import sys
from typing import Any

import click

from imgtool import __version__
from imgtool.bench import bench
from imgtool.export import export
from imgtool.info import info
from imgtool.predict import predict
from imgtool.prepare import prepare
from imgtool.report import report
from imgtool.sample import sample
from imgtool.synset import synset
from imgtool.train import ARGUMENTS, train
from imgtool.val import val
from imgtool.verify import verify

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class OneLineErrors(click.Group):
    """Prints an error as one line and exits with its code: 2 for wrong input, 1 for failed work, 130 for Ctrl-C."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of use, not alphabetical

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as error:
            click.echo("imgtool: interrupted", err=True)
            ctx.exit(getattr(error, "exit_code", INTERRUPTED))
        except BrokenPipeError:
            raise  # click exits quietly, for example when piped into head
        except Exception as error:
            from imgtool.wordnet.errors import ImgtoolError

            if ctx.params.get("debug"):
                raise
            if isinstance(error, ImgtoolError):
                click.echo(f"imgtool: {_one_line(error)}", err=True)
                ctx.exit(error.exit_code)
            if isinstance(error, OSError) and error.strerror:  # from a file that the user asked to write
                place = f"{error.filename}: " if error.filename else ""
                click.echo(f"imgtool: {place}{error.strerror}", err=True)
                ctx.exit(1)
            click.echo(
                f"imgtool: unexpected {type(error).__name__}: {_one_line(error)} (for the traceback: "
                "imgtool --debug COMMAND …)",
                err=True,
            )
            ctx.exit(1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="imgtool")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Turn raw ImageNet into FFCV shards with a class table, and train classifiers from them."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 must not make a command fail


for command in (prepare, verify, train, val, predict, export, report, synset, info, sample, bench):
    main.add_command(command)
