"""How the benchmarks use Ultralytics: it asks no server, installs nothing, leaves the user's settings alone, and prints
no more than errors."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from unittest import mock


def environment(settings: Path) -> dict[str, str]:
    """The variables that it reads when it is imported; ``settings`` is a folder for what it keeps."""
    return {
        "YOLO_CONFIG_DIR": str(settings),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
    }


def load(settings: Path) -> None:
    """Imports it so. Raises ImportError where it is not installed."""
    with mock.patch.dict(os.environ, environment(settings)):
        importlib.import_module("ultralytics")
