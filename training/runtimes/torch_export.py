"""torch.export's own archive (.pt2), run by torch; for archives that imgtool has just written."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from imgtool.training.runtimes.libraries import quietly
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.runtime import Input, Runtime

METADATA = "imgtool.json"


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """Only for files of one's own: torch.export.load unpickles parts of them, which can run any code."""
    extra = {METADATA: ""}
    with quietly():
        module = torch.export.load(str(path), extra_files=extra).module()
    metadata = ModelMetadata.from_strings(json.loads(extra[METADATA]))
    return Runtime(torch.inference_mode()(module), metadata, Input.of(metadata), torch.device("cpu"), None)
