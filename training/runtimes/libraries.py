"""Other libraries: whether they are installed, their warnings, their errors."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator

from imgtool.wordnet.errors import InputError


def needs(*packages: str, extra: str) -> None:
    """Raises InputError, saying what to install, unless all packages are there."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} is not installed: pip install 'imgtool[{extra}]'")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters say of their own insides: deprecations, passes, versions of operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)
