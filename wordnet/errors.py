"""The errors that imgtool raises on purpose, in its lowest module so that every other module can raise them."""

from collections.abc import Iterable


class ImgtoolError(Exception):
    """Base class of all errors that imgtool raises on purpose.

    The message says in one line what is wrong, where, and what to do.

    Raised itself for work that failed without being the fault of the input: a package that is not installed, a full
    disk, a failed worker process.

    Attributes:
        exit_code: the command line's exit code for this error: 1, failed work.
    """

    exit_code = 1


class InputError(ImgtoolError):
    """Raised when something that the user gave is wrong: a path, an option, a name, the content of a file.

    Exit code 2.
    """

    exit_code = 2


class SourceError(InputError):
    """Raised when a raw data set cannot be recognised or read. Exit code 2."""


class TruncatedSourceError(ImgtoolError):
    """Raised when an archive of a source ends early, after all complete images have been stored. Exit code 1."""


class DatasetError(InputError):
    """Raised when a prepared data set is missing, incomplete, damaged or of another format version. Exit code 2."""


class CheckpointError(InputError):
    """Raised when a checkpoint, an exported model or a run directory is missing or cannot be used. Exit code 2."""


class TrainingError(ImgtoolError):
    """Raised when a training run cannot continue, for example after a NaN or infinite loss. Exit code 1."""


class BenchError(ImgtoolError):
    """Raised when a benchmark fails, or when its results would not be comparable. Exit code 1."""


class ImageError(InputError):
    """Raised when an image cannot be decoded. Exit code 2."""


class UnknownSynsetError(InputError, KeyError):
    """Raised when a key matches no synset of the hierarchy, or more than one. Exit code 2.

    It is also a `KeyError`, as for any other mapping. The message suggests similar keys.
    """

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0])


def listed(items: Iterable[str], most: int = 8) -> str:
    """Returns at most `most` of the items, separated by commas: "a, b, c and 5 more"."""
    items = list(items)
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, at most 300 characters; without a message, its class's name."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
