"""TorchScript, run by torch, from C++ too."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from imgtool.training.export.graph import Deployed
from imgtool.training.export.plan import Plan
from imgtool.training.runtimes.libraries import quietly
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.torchscript import METADATA


def write(deployed: Deployed, plan: Plan, about: ModelMetadata, path: Path) -> None:
    with quietly(), torch.inference_mode():
        if deployed.preprocess is not None:
            deployed.preprocess = torch.jit.script(deployed.preprocess)  # a trace would keep one size of images
        traced = torch.jit.freeze(torch.jit.trace(deployed.eval(), plan.example(), check_trace=False))
        torch.jit.save(traced, str(path), _extra_files={METADATA: json.dumps(about.to_strings())})
