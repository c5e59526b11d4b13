"""Past crashes of the codec, and a short run of the fuzzers (`make fuzz` runs them longer)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CRASHES = sorted((HERE / "crashes").iterdir())
sys.path.insert(0, str(HERE))

REPLAY = """
import io, resource, sys, threading, warnings
import numpy as np
from PIL import Image
from imgtool.pipelines import codec
from imgtool.wordnet.errors import ImageError

with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {memory}, resource.RLIM_INFINITY))
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))

def outcome(path, store):
    data = open(path, "rb").read()
    try:
        recoded = codec.recode(data, store=store)
    except ImageError as error:
        return str(error)
    if store == "raw":
        return recoded.data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Image.open(io.BytesIO(recoded.data)).load()
    return recoded.data

def alone(path, store):
    made = []
    thread = threading.Thread(target=lambda: made.append(outcome(path, store)))
    thread.start()
    thread.join()
    return made[0]

paths = sys.argv[1:]
for store in codec.STORES:
    for path in (*paths, *reversed(paths)):
        assert outcome(path, store) == alone(path, store), (path, store)
print("replayed")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of memory is Linux's")
def test_past_crashes_are_replayed():
    """Each gives an ImageError or a sound image, the same after other images, with little memory and time."""
    code = textwrap.dedent(REPLAY.format(memory=2**29, seconds=20))
    command = [sys.executable, "-c", code, *map(str, CRASHES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "replayed\n"), done.stderr


def test_the_corpus_has_every_variant(tmp_path):
    import corpus

    from imgtool.pipelines import codec
    from imgtool.wordnet.errors import ImageError

    paths, seen = corpus.draw(tmp_path), set()
    for path in paths:
        try:
            header = codec.probe(path.read_bytes()[: -corpus.SETTINGS])
        except ImageError:
            continue
        seen |= {header["space"], header["sampling"], header["progressive"], header["orientation"]}
    assert {"ycbcr", "grayscale", "rgb", "cmyk", (2, 2), (2, 1), (1, 1), True, False, *range(1, 9)} <= seen
    assert sum(path.stat().st_size for path in paths) < 2**20


@pytest.mark.slow
@pytest.mark.parametrize("target", ["replay", "codec", "differential", "truncate", "pool"])
def test_the_fuzzers_find_nothing(target, tmp_path):
    import corpus
    import run

    if not shutil.which("clang++"):
        pytest.skip("clang is not installed: make fuzz installs it")
    for sanitizer in ("fuzzer", "address", "thread"):
        empty = "int LLVMFuzzerTestOneInput() { return 0; }" if sanitizer == "fuzzer" else "int main() {}"
        command = ["clang", f"-fsanitize={sanitizer}", "-x", "c", "-", "-o", tmp_path / sanitizer, "-lstdc++", "-lm"]
        if subprocess.run(command, input=empty, text=True, capture_output=True).returncode:
            pytest.skip("clang's sanitizers are not installed: make fuzz installs them")
    run.build(target)
    corpus.draw(run.BUILD / "seeds")
    passed, line = run.run(target, 10)
    assert passed, line
