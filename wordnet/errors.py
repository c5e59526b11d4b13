"""The errors of imgtool, in its lowest module so that every other may raise them, and lists in their messages."""

from collections.abc import Iterable


class ImgtoolError(Exception):
    """Root of all errors raised on purpose: the message says what, where and what to do.

    ``exit_code`` is what the command line exits with: 1 for work that failed.
    """

    exit_code = 1


class InputError(ImgtoolError):
    """What the user gave is wrong: a path, an option, a name, a file's content. Exit code 2."""

    exit_code = 2


class SourceError(InputError):
    """A raw data set that cannot be recognised or read."""


class TruncatedSourceError(ImgtoolError):
    """A source ended early; what was whole has been saved."""


class DatasetError(InputError):
    """A prepared data set that is missing, incomplete or not of this format."""


class CheckpointError(InputError):
    """A checkpoint or run directory that is missing or cannot be used."""


class TrainingError(ImgtoolError):
    """A training that cannot go on."""


class BenchError(ImgtoolError):
    """A benchmark whose figures would not be comparable."""


class ImageError(InputError):
    """An image that cannot be decoded."""


class UnknownSynsetError(InputError, KeyError):
    """No synset, or no single synset, goes by this key."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0])


def listed(items: Iterable[str], most: int = 8) -> str:
    """``a, b, c and 5 more``"""
    items = list(items)
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, at most 300 characters; without a message, its class's name."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
