"""Checkpoints from strangers: read or refused with a CheckpointError, in memory and time bounded by the file's size."""

from __future__ import annotations

import copy
import pickle
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgtool.training.checkpoints import archive, checkpoint, safe_pickle
from imgtool.training.checkpoints.content import RESUME_RULES, RULES
from imgtool.training.recipes import load
from imgtool.training.runtimes.trained import open_model
from imgtool.wordnet.errors import CheckpointError

MEMORY = 1 << 30  # bytes that a child process may take beyond those it has after the imports
READS = """
import resource, sys
from imgtool.training.checkpoints import checkpoint, safe_pickle, ultralytics
from imgtool.wordnet.errors import CheckpointError
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for path in sys.argv[2:]:
    for read in (safe_pickle.read, checkpoint.load, ultralytics.load, ultralytics.recognises):
        try:
            print(type(read(path)).__name__)
        except CheckpointError as error:
            print("CheckpointError:", str(error)[-200:])
"""


def read_in_child(*paths: Path) -> str:
    """Reads files by every reader, in a child process of limited memory and time. Fails unless all end well."""
    done = subprocess.run(
        [sys.executable, "-c", READS, str(MEMORY), *map(str, paths)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert "MemoryError" not in done.stdout, done.stdout
    return done.stdout


def torch_file(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(f"archive/{name}", content)
    return path


def name_of(name: str) -> bytes:
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def memo(key: int) -> bytes:
    return b"r" + struct.pack("<I", key)


def recall(key: int) -> bytes:
    return b"j" + struct.pack("<I", key)


def nested_copies(kind: str, times: int = 2000, items: int = 20_000) -> bytes:
    """A pickle that keeps a container of ``items`` items in the memo and copies it ``times`` times."""
    start = b"\x80\x02](" + b"K\x01" * items + b"e" + memo(1)
    pairs = b"\x80\x02](" + b"".join(b"K\x01K\x02\x86" for _ in range(items)) + b"e" + memo(1)
    state = b"\x80\x02}(" + b"".join(b"X\x08\0\0\0%08xK\x01" % i for i in range(items)) + b"u" + memo(1)
    call = b"(" + (recall(2) + recall(1) + b"\x85R") * times + b"l."
    build = b"(" + (recall(2) + b")\x81" + recall(1) + b"b") * times + b"l."
    put = memo(2)
    pickled = {
        "list": start + name_of("__builtin__.list") + put + call,
        "set": start + name_of("__builtin__.set") + put + call,
        "frozenset": start + name_of("__builtin__.frozenset") + put + call,
        "OrderedDict": pairs + name_of("collections.OrderedDict") + put + call,
        "dict": pairs + name_of("__builtin__.dict") + put + call,
        "build": state + name_of("ultralytics.nn.tasks.A") + put + build,
        "tuple": start + name_of("__builtin__.tuple") + put + call,
    }[kind]
    return pickled[:-2] + b"t." if pickled.endswith(b"l.") else pickled


def test_copies_of_copies(tmp_path: Path) -> None:
    """40 million copied items in files of 300 kB. A tuple is not copied: it is kept as an object of that name."""
    kinds = ("list", "set", "frozenset", "OrderedDict", "dict", "build")
    paths = [torch_file(tmp_path / f"{kind}.pt", {"data.pkl": nested_copies(kind)}) for kind in (*kinds, "tuple")]
    assert read_in_child(*paths).count("copies more values than it has bytes") == 3 * len(kinds)


def test_a_value_that_is_exponentially_large(tmp_path: Path) -> None:
    """Lists that contain the one before twice take no memory, but printing or comparing the last one never ends."""
    doubled = b"]" + memo(0) + b"".join(recall(i) + b"\x86" + memo(i + 1) for i in range(64))
    itself = b"]" + memo(0) + recall(0) + b"a"
    paths = []
    for value in (doubled, itself):
        for key in ("recipe", "metrics", "resume", "size", "wnids", "model"):
            pickled = b"\x80\x02}(X\x06\0\0\0formatX\x14\0\0\0imgtool-checkpoint-1"
            for other in RULES:
                pickled += b"X" + struct.pack("<I", len(other)) + other.encode() + (value if other == key else b"N")
            pickled += b"X\x05\0\0\0model" + value + b"u."
            paths.append(torch_file(tmp_path / f"{len(paths)}.pt", {"data.pkl": pickled}))
    read_in_child(*paths)


def test_long_pickles(tmp_path: Path) -> None:
    pickles = [b"\x80\x04N" + opcode * 2_100_000 + b"." for opcode in (b"(", b"]", b"\x85", b"\x94", b"}")]
    paths = [torch_file(tmp_path / f"{n}.pt", {"data.pkl": pickled}) for n, pickled in enumerate(pickles)]
    assert read_in_child(*paths).count("opcodes") == 3 * len(paths)
    longer = bytes(archive.MAX_PICKLE_BYTES + 1)
    assert "data.pkl is longer" in read_in_child(torch_file(tmp_path / "a.pt", {"data.pkl": longer}))


def test_keys_with_the_same_hash(tmp_path: Path) -> None:
    """A dict of 50,000 integers with one hash takes minutes to build."""
    keys = b"".join(b"\x8a\x0c" + ((i << 61) - i).to_bytes(12, "little", signed=True) + b"N" for i in range(1, 50_000))
    assert "as a dict key" in read_in_child(torch_file(tmp_path / "a.pt", {"data.pkl": b"\x80\x02}(" + keys + b"u."}))


EMPTY = {"data.pkl": b"\x80\x02N."}


def test_members_that_claim_too_much(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch_file(path, EMPTY | {"data/0": bytes(200 << 20)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20 and read_in_child(path).count("compressed") == 3
    whole = torch_file(path, EMPTY | {"data/0": b"abcd", "data/1": b"efgh"}).read_bytes()
    last = whole.rindex(b"PK\x01\x02")
    first_local, entries = whole.index(b"PK\x03\x04"), whole.index(b"PK\x01\x02")
    paths = []
    for change in (
        {20: struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)},  # sizes beyond the file
        {20: struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF)},  # zip64 sizes, without the field that has them
        {20: struct.pack("<II", 4, 1 << 30)},  # stored, but of two sizes
        {42: struct.pack("<I", first_local)},  # the place of another member
        {42: struct.pack("<I", entries)},
        {42: b"\xff\xff\xff\x7f"},
        {10: struct.pack("<H", 93)},  # packed by zstd
        {8: struct.pack("<H", 1)},  # encrypted
    ):
        content = bytearray(whole)
        for offset, field in change.items():
            content[last + offset : last + offset + len(field)] = field
        path = tmp_path / f"{len(paths)}.pt"
        path.write_bytes(content)
        paths.append(path)
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            safe_pickle.read(path)
    assert read_in_child(*paths).count("CheckpointError") == 3 * len(paths)


def test_overlapping_members(tmp_path: Path) -> None:
    """The extra field of a local header may cover the next member, so that bytes of the file count twice."""
    whole = torch_file(tmp_path / "a.pt", EMPTY | {"data/0": b"abcd", "data/1": b"efgh"}).read_bytes()
    at = whole.index(b"PK\x03\x04", 4)
    content = bytearray(whole)
    content[at + 28 : at + 30] = struct.pack("<H", 60)
    (tmp_path / "a.pt").write_bytes(content)
    with archive.TorchArchive(tmp_path / "a.pt") as file, pytest.raises(CheckpointError, match="overlaps"):
        file.read("data/0")


def test_too_many_and_equal_members(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "a.pt", EMPTY | {f"data/{i}": b"" for i in range(archive.MAX_MEMBERS)})
    assert read_in_child(path).count("more than 65,536 members") == 3
    torch_file(path, EMPTY | {"data/0": b"ab"})
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("archive/data/0", b"cd")
    with pytest.raises(CheckpointError, match="same name"):
        safe_pickle.read(path)


def metrics() -> dict[str, Any]:
    return {"top1": 0.5, "top5": 0.9, "loss": 1.0, "images": 10, "seconds": 1.5, "classes": None}


@pytest.fixture(scope="module")
def valid() -> dict[str, Any]:
    """The content of a small last.pt, as training writes it."""
    network = open_model("n").network
    network.model[9].linear = torch.nn.Linear(1280, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    meter = {"steps": 2, "steps_read": 1, "images": 64, "bad_steps": 0, "loss_sum": 0.5, "waited": 0.1}
    return {
        "size": "n",
        "dropout": 0.0,
        "imgsz": 224,
        "wnids": ["n01440764", "n01443537"],
        "names": ["tench", "goldfish"],
        "epoch": 1,
        "metrics": metrics(),
        "recipe": load("n").to_dict(),
        "ema": network.state_dict(),
        "resume": {
            "model": {"w": torch.ones(2)},
            "optimizer": optimizer.state_dict(),
            "scaler": None,
            "ema_steps": 5,
            "rng": [{"cpu": torch.get_rng_state(), "cuda": []}],
            "loader": {"epoch": 1, "batch": 0, "seed": 0, "order": "random"},
            "meters": [meter | {"unread": [0.0] * 50, "seconds": 2.0}],
            "best": metrics(),
            "seconds": 12.5,
        },
    }


WRONG: dict[str, Any] = {
    "int": -1,
    "bool": True,
    "huge": 1 << 200,
    "inf": float("inf"),
    "nan": float("nan"),
    "text": "abc",
    "list": [[]],
    "strings": ["a"],
    "dict": {"a": {}},
    "numbers": {1: 2},
    "bytes": b"\xff",
    "tensor": torch.ones(2, 3),
    "complex": torch.zeros(0, dtype=torch.int64),
    "object": torch.float16,
    "none": None,
}
KEYS = [*RULES, *(f"resume.{key}" for key in RESUME_RULES)]


@pytest.mark.parametrize("key", KEYS)
def test_any_value_under_any_key(key: str, valid: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save(path, valid)
    open_model(path)
    inner = key.removeprefix("resume.")
    refused = 0
    for value in WRONG.values():
        content = {**valid, "resume": {**valid["resume"]}}
        (content["resume"] if inner != key else content)[inner] = value
        checkpoint.save(path, content)
        try:
            open_model(path)
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 1000
            assert inner in str(error) or "fit the network" in str(error)
            refused += 1
    assert refused >= 9
    content = {**valid, "resume": {**valid["resume"]}}
    del (content["resume"] if inner != key else content)[inner]
    checkpoint.save(path, content)
    with pytest.raises(CheckpointError, match=f"lacks the keys {re.escape(key)}"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"recipe": {"loss": "ce:label_smoothing=abc"}}, "label_smoothing"),
        ({"recipe": {"loss": "ce:unknown=1"}}, "unknown"),
        ({"recipe": {"loss": "hxe:alpha=abc"}}, "alpha"),
        ({"recipe": {"loss": 5}}, "loss"),
        ({"recipe": {"drop_path": "x"}}, "drop_path"),
        ({"recipe": {"drop_path": 7.0}}, "drop_path"),
        ({"size": "timm:hf-hub:user/model"}, "not the name of a network"),
        ({"size": "timm:local-dir:/tmp"}, "not the name of a network"),
        ({"size": "torchvision:fasterrcnn_resnet50_fpn"}, "unknown model"),
        ({"size": "q"}, "unknown size"),
        ({"size": "x"}, "do not fit"),
        ({"ema": {}}, "do not fit"),
        ({"wnids": ["a"] * 300_000, "names": ["a"] * 300_000}, "do not fit"),
        ({"wnids": [], "names": []}, "num_classes"),
        ({"names": ["a"]}, "names has 1 entries"),
        ({"imgsz": 10**9}, "imgsz"),
        ({"imgsz": 31}, "imgsz"),
    ],
    ids=str,
)
def test_values_that_do_not_fit(changes: dict[str, Any], named: str, valid: dict[str, Any], tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", valid | changes)
    with pytest.raises(CheckpointError, match=named):
        open_model(tmp_path / "a.pt")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to every value within nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in list(items)[:6] for found in places(item, (*path, key)))]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_structure(valid: dict[str, Any], data: st.DataObject) -> None:
    content = copy.deepcopy(valid | {"ema": {"w": torch.ones(2)}})
    *way, last = data.draw(st.sampled_from(places(content)[1:]))
    target = content
    for key in way:
        target = target[key]
    if data.draw(st.booleans()) and isinstance(target, dict):
        del target[last]
    else:
        target[last] = WRONG[data.draw(st.sampled_from(sorted(WRONG)))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pt"
        checkpoint.save(path, content)
        for read in (checkpoint.load, open_model):
            _reads_or_refuses(read, path)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_mutated_bytes(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = torch_file(Path(folder) / "a.pt", {"data.pkl": pickle.dumps({"format": "x"}, 2), "data/0": b"abcd"})
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        path.write_bytes(content)
        for read in (checkpoint.load, safe_pickle.read, open_model):
            _reads_or_refuses(read, path)


def _reads_or_refuses(read: Callable[[Path], Any], path: Path) -> None:
    try:
        read(path)
    except CheckpointError as error:
        assert "\n" not in str(error)


def test_memory_is_measured() -> None:
    """The limit of the child process works: the same program fails if it takes more."""
    program = READS.replace("for path in", "bytearray(2 << 30)\nfor path in")
    done = subprocess.run([sys.executable, "-c", program, str(MEMORY)], capture_output=True, text=True)
    assert done.returncode == 1 and "MemoryError" in done.stderr
