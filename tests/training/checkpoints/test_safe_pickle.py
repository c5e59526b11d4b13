"""Foreign torch files: tensors and pickled objects are read, nothing runs, and memory is bounded by the file."""

import datetime
import io
import pickle
import random
import struct
import tempfile
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.training.checkpoints import safe_pickle
from imgtool.wordnet.errors import CheckpointError


def archive(
    path: Path, pickled: bytes, members: dict[str, bytes] | None = None, folder: str = "archive", pack: int = 0
) -> Path:
    """Writes a torch file with this data.pkl."""
    with zipfile.ZipFile(path, "w", pack) as file:
        file.writestr(f"{folder}/data.pkl", pickled)
        for name, content in (members or {}).items():
            file.writestr(f"{folder}/{name}", content)
    return path


def tensor(numel: int = 4, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,), key: str = "0") -> bytes:
    """A pickle of a tensor that claims a storage of ``numel`` floats."""

    class Claim:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (Storage(), 0, size, stride, False, OrderedDict())

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, key, "cpu", numel) if isinstance(value, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(Claim())
    return buffer.getvalue()


FLOATS = {"data/0": struct.pack("<4f", 1, 2, 3, 4)}


class Runs:
    """Its pickle is a call of the function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_and_plain_values(protocol: int, tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    value: dict[str, Any] = {
        "dtypes": [
            torch.ones(3, 2, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64)
        ],
        "parameter": torch.nn.Parameter(torch.full((2,), 3.0)),
        "view": base.t()[1:3],
        "same": base,
        "empty": torch.empty(0, 5),
        "scalar": torch.tensor(7),
        "plain": {"a": [1, -2, 1 << 40, 0.5, None, True, (1, 2, 3, 4), "ä", b"\x00"], 5: {"b": {}}},
        "ordered": OrderedDict(x=1, y=2),
        "sets": [set(), {"a"}, frozenset({1})],
    }
    torch.save(value, tmp_path / "a.pt", pickle_protocol=protocol)
    found = safe_pickle.read(tmp_path / "a.pt")
    for ours, theirs in zip(found["dtypes"], value["dtypes"], strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    for key in ("view", "same", "empty", "scalar"):
        assert torch.equal(found[key], value[key])
    assert torch.equal(found["parameter"], value["parameter"]) and found["empty"].shape == (0, 5)
    assert found["ordered"] == {"x": 1, "y": 2} and found["sets"] == [[], ["a"], [1]]
    if protocol > 2:  # in protocol 2 bytes are a call of _codecs.encode
        assert found["plain"] == value["plain"]
    assert found["view"].data_ptr() == found["same"].data_ptr() + 4


def test_objects_keep_class_name_and_attributes(tmp_path: Path) -> None:
    value = {
        "module": torch.nn.BatchNorm2d(3, eps=1e-3),
        "path": Path("runs/x"),
        "number": np.float64(3),
        "date": datetime.datetime(2023, 1, 1),
        "namespace": types.SimpleNamespace(a=1),
        "slice": slice(1, 2),
        "shape": torch.Size([1, 2]),
        "dtype": torch.float16,
    }
    torch.save(value, tmp_path / "a.pt")
    found = safe_pickle.read(tmp_path / "a.pt")
    norm = found["module"]
    assert isinstance(norm, safe_pickle.PickledObject) and norm.class_name == "torch.nn.modules.batchnorm.BatchNorm2d"
    assert norm.get("eps") == 1e-3 and norm.get("training") is True and norm.get("absent", 5) == 5
    assert torch.equal(norm.get("_buffers")["running_var"], torch.ones(3))
    assert found["namespace"].class_name == "types.SimpleNamespace" and found["namespace"].get("a") == 1
    assert found["number"].class_name.endswith("multiarray.scalar") and found["shape"].class_name == "torch.Size"


PWNED = "open('pwned', 'w').close()"


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Runs(__import__("os").system, "touch pwned"), "posix.system"),
        (Runs(eval, PWNED), "builtins.eval"),
        (Runs(exec, PWNED), "builtins.exec"),
        (Runs(__import__, "os"), "builtins.__import__"),
        (Runs(getattr, torch.nn.SiLU(), "__class__"), "builtins.getattr"),
        (Runs(getattr, Runs(getattr, torch.nn.SiLU(), "forward_fuse"), "__func__"), "builtins.getattr"),
        (Runs(setattr, torch.nn.SiLU(), "a", 1), "builtins.setattr"),
        (
            Runs(torch.serialization.load, "other.pt"),
            "torch.serialization.load",
        ),  # not torch.load, which some packages replace
        (Runs(torch.nn.SiLU, Runs(eval, PWNED)), "builtins.eval"),
        (Runs(set, [Runs(exec, PWNED)]), "builtins.exec"),
        (Runs(torch.storage._load_from_bytes, b"evil"), "torch.storage._load_from_bytes"),
        (Runs(torch.hub.load, "a/b", "c"), "torch.hub.load"),
        (Runs(torch.zeros, 1 << 40), "torch._C._VariableFunctionsClass"),
        (Runs(__import__("functools").partial, exec, PWNED), "functools.partial"),
        (Runs(__import__("subprocess").Popen, ["touch", "pwned"]), "subprocess.Popen"),
        (Runs(__import__("operator").methodcaller, "system", "touch pwned"), "operator.methodcaller"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_functions_are_refused_by_name(
    value: Any, named: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps({"model": value}, protocol=protocol)
    archive(Path("evil.pt"), pickled)
    with pytest.raises(CheckpointError, match=r"evil\.pt is refused: it calls for '") as caught:
        safe_pickle.read("evil.pt")
    if named.startswith("torch."):  # torch moves functions between modules from version to version
        named = named.rsplit(".", 1)[-1]
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("pwned").exists()
    if "exec" in named or "eval" in named:
        pickle.loads(pickled) if "partial" not in named else None
        assert Path("pwned").exists()  # it does run in pickle


def test_names_within_allowed_modules_cannot_reach_out(tmp_path: Path) -> None:
    """A check of the prefix alone would accept this name: ultralytics.utils imports os."""
    pickled = b"\x80\x04\x8c\x11ultralytics.utils\x8c\x09os.system\x93\x8c\x02ls\x85R."
    with pytest.raises(CheckpointError, match=r"it calls for 'ultralytics\.utils\.os\.system'"):
        safe_pickle.read(archive(tmp_path / "a.pt", pickled))


def test_a_pickled_object_calls_none_of_its_attributes(tmp_path: Path) -> None:
    """Python's unpickler would call the attributes __setstate__ and append."""
    name = b"cultralytics.nn.tasks\nA\n"
    state = b"}(" + b"".join(b"X" + struct.pack("<I", len(k)) + k + name for k in (b"__setstate__", b"append")) + b"u"
    body = name + b")\x81" + state + b"b" + state + b"bK\x01a(K\x01K\x02uNb."
    found = safe_pickle.read(archive(tmp_path / "a.pt", b"\x80\x02" + body))
    assert isinstance(found, safe_pickle.PickledObject) and set(found.attributes) == {"__setstate__", "append"}
    calls_an_object = b"\x80\x02" + name + b")\x81)R."
    with pytest.raises(CheckpointError, match="not a function"):
        safe_pickle.read(archive(tmp_path / "b.pt", calls_an_object))


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"numel": 1 << 40}, "a tensor claims 1,099,511,627,776 elements of the 4 in the file"),
        ({"size": (1 << 40,)}, "a tensor claims"),
        ({"size": (1 << 30, 1 << 30), "stride": (0, 0)}, "a tensor claims"),
        ({"size": (5,), "stride": (0,)}, "claims 5 elements of the 4"),
        ({"size": (2,), "stride": (4,)}, "claims 5 elements of the 4"),
        ({"size": (-1,)}, "invalid size or stride"),
        ({"size": (4, 1)}, "invalid size or stride"),
        ({"key": "../../../../etc/passwd"}, "it has no member 'data/../../../../etc/passwd'"),
        ({"key": "1"}, "it has no member 'data/1'"),
    ],
    ids=str,
)
def test_tensors_that_claim_more_than_the_file_has(claim: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert torch.equal(safe_pickle.read(archive(tmp_path / "a.pt", tensor(), FLOATS)), torch.tensor([1.0, 2, 3, 4]))
    with pytest.raises(CheckpointError) as caught:
        safe_pickle.read(archive(tmp_path / "a.pt", tensor(**claim), FLOATS))
    assert message in str(caught.value)


def test_bombs(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(CheckpointError, match="is compressed"):
        safe_pickle.read(archive(path, pickle.dumps(random.Random(0).randbytes(1000), 4), pack=zipfile.ZIP_DEFLATED))
    data = archive(path, tensor(), FLOATS).read_bytes()
    entry = data.rindex(b"PK\x01\x02")  # the last member's, data/0
    path.write_bytes(data[: entry + 20] + struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0) + data[entry + 28 :])
    with pytest.raises(CheckpointError, match=r"size or offset of member .* is impossible"):
        safe_pickle.read(path)
    huge_memo_index = b"\x80\x02]r\xff\xff\xff\x7f."  # Python's unpickler in C allocates a list of 2^31 entries
    assert safe_pickle.read(archive(path, huge_memo_index)) == []
    for opcode in (b"B\xff\xff\xff\xff", b"X\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8, b"\x95" + b"\x7f" * 8):
        with pytest.raises(CheckpointError):
            safe_pickle.read(archive(path, b"\x80\x04" + opcode + b"a."))
    nested = b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s."  # hashing that key overflows C's stack
    with pytest.raises(CheckpointError, match="a tuple as a dict key"):
        safe_pickle.read(archive(path, nested))


@pytest.mark.parametrize("folder", ["..", "../../x", "/etc", "a/b"])
def test_paths_in_the_archive(folder: str, tmp_path: Path) -> None:
    """Members are looked up by name, never extracted."""
    path = archive(tmp_path / "a.pt", tensor(), FLOATS, folder)
    try:
        assert len(safe_pickle.read(path)) == 4
    except CheckpointError as error:
        assert "it has 0 data.pkl" in str(error) or "points outside the archive" in str(error)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_two_pickles_in_a_file(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", tensor(), FLOATS)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("other/data.pkl", b"\x80\x02N.")
    with pytest.raises(CheckpointError, match=r"it has 2 data\.pkl"):
        safe_pickle.read(path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(CheckpointError, match=r"a\.pt is damaged or not a torch file: .*No such file"):
        safe_pickle.read(path)
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"a\.pt is refused: it has the format of torch before 1\.6"):
        safe_pickle.read(path)
    for content in (b"", b"garbage", pickle.dumps({"a": 1}, 2)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"a\.pt is damaged or not a torch file") as caught:
            safe_pickle.read(path)
        assert "\n" not in str(caught.value)
        assert safe_pickle.pickle_of(path) == b""
    with pytest.raises(CheckpointError, match="big-endian"):
        safe_pickle.read(archive(path, tensor(), FLOATS | {"byteorder": b"big"}))
    with pytest.raises(CheckpointError, match="damaged or not a torch file"):
        safe_pickle.read(tmp_path)


VALID = io.BytesIO()
torch.save({"model": torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)), "a": [1, (2.5,)]}, VALID)
WITHIN = zipfile.ZipFile(VALID)
PICKLED = next(WITHIN.read(name) for name in WITHIN.namelist() if name.endswith("data.pkl"))
STORED = {f"data/{key}": WITHIN.read(f"archive/data/{key}") for key in range(7)}


@settings(max_examples=150)
@given(st.data())
def test_mutated_bytes_are_read_or_refused(data: st.DataObject) -> None:
    """Mutates the whole file, which its checksums mostly detect, or the pickle alone, which they do not protect."""
    whole = data.draw(st.booleans())
    content = bytearray(VALID.getvalue() if whole else PICKLED)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        end = start + data.draw(st.sampled_from([0, 1, 1, 2, 40]))
        content[start:end] = data.draw(st.binary(max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pt"
        if whole:
            path.write_bytes(content)
        else:
            archive(path, bytes(content), STORED)
        try:
            safe_pickle.read(path)
        except CheckpointError as error:
            assert "\n" not in str(error)


@settings(max_examples=40)
@given(st.floats(0, 1, exclude_max=True))
def test_truncated(share: float) -> None:
    whole = VALID.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pt"
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match=r"damaged or not a torch file"):
            safe_pickle.read(path)
