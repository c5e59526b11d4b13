"""torch.export's own archive (.pt2), for AOTInductor, ExecuTorch and others that compile it further."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from imgtool.training.export.graph import Deployed
from imgtool.training.export.plan import Plan
from imgtool.training.runtimes.libraries import quietly
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.torch_export import METADATA


def write(deployed: Deployed, plan: Plan, about: ModelMetadata, path: Path) -> None:
    with quietly():
        program = torch.export.export(deployed, (plan.example(),), dynamic_shapes=(plan.dynamic_shapes(),))
        with open(path, "wb") as file:
            torch.export.save(program, file, extra_files={METADATA: json.dumps(about.to_strings())})
