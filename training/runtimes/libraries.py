"""Optional libraries: whether they are installed, their warnings and their error messages."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator

from imgtool.wordnet.errors import InputError


def require_packages(*packages: str, extra: str) -> None:
    """Raises InputError, with the command that installs them, unless all packages are installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} is not installed: pip install 'imgtool[{extra}]'")


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Silences the warnings and log lines that exporters print about their internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)
