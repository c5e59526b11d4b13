"""TorchScript, run by torch, from C++ too."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from imgtool.training.export.graph import Deployed
from imgtool.training.export.plan import Plan, first_line, quietly
from imgtool.training.parallel.device import exact_float32, resolve_device
from imgtool.training.runtimes.metadata import About
from imgtool.training.runtimes.runtime import Input, Runtime
from imgtool.wordnet.errors import CheckpointError

SUFFIX = ".torchscript"
METADATA = "imgtool.json"
FOREIGN = "config.txt"  # Ultralytics' metadata


def write(deployed: Deployed, plan: Plan, about: About, path: Path) -> None:
    with quietly(), torch.inference_mode():
        if deployed.preprocess is not None:
            deployed.preprocess = torch.jit.script(deployed.preprocess)  # a trace would keep one size of pictures
        traced = torch.jit.freeze(torch.jit.trace(deployed.eval(), plan.example(), check_trace=False))
        torch.jit.save(traced, str(path), _extra_files={METADATA: json.dumps(about.to_strings())})


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """Raises CheckpointError for a file that is no model of pictures."""
    place = resolve_device(device)
    extra = {METADATA: "", FOREIGN: ""}
    try:
        with quietly():
            module = torch.jit.load(str(path), map_location=place, _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"torch cannot read it: {first_line(error)}") from error
    try:
        stored = json.loads(extra[METADATA] or extra[FOREIGN] or "{}")
        about = About.from_strings({str(key): str(value) for key, value in stored.items()})
    except (ValueError, AttributeError):
        raise CheckpointError("its metadata are damaged: export it again") from None

    def run(images: Tensor) -> Tensor:
        try:
            with torch.inference_mode(), exact_float32():
                out = module(images)
        except RuntimeError as error:
            raise CheckpointError(f"torch cannot run it: {first_line(error)}") from error
        if not isinstance(out, Tensor):
            raise CheckpointError("it gives no tensor, and so is no classifier")
        return out

    return Runtime(run, about, Input.of(about), place, None)
