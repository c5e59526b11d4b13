"""The modules and the memory that importing and loading take in a fresh process.

`imgtool bench wordnet` measures time and resident memory; the latter depends on the page size and the allocator. These
tests count the bytes that Python and numpy allocate.
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
