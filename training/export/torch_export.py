"""torch.export's own archive (.pt2), for AOTInductor, ExecuTorch and others that compile it further."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from imgtool.training.export.graph import Deployed
from imgtool.training.export.plan import Plan, quietly
from imgtool.training.runtimes.metadata import About
from imgtool.training.runtimes.runtime import Input, Runtime

SUFFIX = ".pt2"
METADATA = "imgtool.json"


def write(deployed: Deployed, plan: Plan, about: About, path: Path) -> None:
    with quietly():
        program = torch.export.export(deployed, (plan.example(),), dynamic_shapes=(plan.dynamic_shapes(),))
        with open(path, "wb") as file:
            torch.export.save(program, file, extra_files={METADATA: json.dumps(about.to_strings())})


def read(path: Path, device: str, threads: int | None) -> Runtime:
    """Only for files of one's own: torch.export.load unpickles parts of them, which can run any code."""
    extra = {METADATA: ""}
    with quietly():
        module = torch.export.load(str(path), extra_files=extra).module()
    about = About.from_strings(json.loads(extra[METADATA]))
    return Runtime(torch.inference_mode()(module), about, Input.of(about), torch.device("cpu"), None)
