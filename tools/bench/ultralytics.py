"""Imports Ultralytics for the benchmarks so that it does not access the network, install packages, change the user's
settings or print anything but errors."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from unittest import mock


def environment(settings: Path) -> dict[str, str]:
    """Returns the environment variables that it reads when imported; ``settings`` is the folder for its settings."""
    return {
        "YOLO_CONFIG_DIR": str(settings),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
    }


def load(settings: Path) -> None:
    """Imports it in that way.

    Raises:
        ImportError: it is not installed.
    """
    with mock.patch.dict(os.environ, environment(settings)):
        importlib.import_module("ultralytics")
