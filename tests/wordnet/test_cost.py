"""What importing and loading bring along, in a fresh process. How long they take, `imgtool bench wordnet` says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

MEASURE = """
import json, sys
import numpy
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
before = resident()
from imgtool import wordnet
modules = sorted({name.split(".")[0] for name in sys.modules})
h = wordnet.load("CLASSES")
h["dog.n.01"].depth, h.find("crane"), h["dog.n.01"].descendants()
print(json.dumps({"mib": resident() - before, "modules": modules}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("classes", ["in1k", "full"])
def test_cost(classes: str) -> None:
    command = [sys.executable, "-c", MEASURE.replace("CLASSES", classes)]
    runs: list[dict[str, Any]] = [json.loads(subprocess.check_output(command)) for _ in range(3)]
    assert min(run["mib"] for run in runs) <= 30
    assert not {"nltk", "pyarrow", "torch", "scipy", "click"} & set(runs[0]["modules"])
