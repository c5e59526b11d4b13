"""What importing and loading bring along, in a fresh process.

How long they take and how much memory stays resident, `imgtool bench wordnet` says; the latter depends on the size of
pages and on the allocator. Here the bytes are counted that Python and numpy ask for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

MEASURE = """
import json, sys, tracemalloc
import numpy
tracemalloc.start()
from imgtool import wordnet
modules = sorted({name.split(".")[0] for name in sys.modules})
h = wordnet.load("CLASSES")
h["dog.n.01"].depth, h.find("crane"), h["dog.n.01"].descendants()
print(json.dumps({"mib": tracemalloc.get_traced_memory()[1] / 2**20, "modules": modules}))
"""


@pytest.mark.parametrize("classes", ["in1k", "full"])
def test_cost(classes: str) -> None:
    command = [sys.executable, "-c", MEASURE.replace("CLASSES", classes)]
    cost: dict[str, Any] = json.loads(subprocess.check_output(command))
    assert 1 < cost["mib"] <= 25  # at most; NLTK takes 150
    assert not {"nltk", "pyarrow", "torch", "scipy", "click"} & set(cost["modules"])
