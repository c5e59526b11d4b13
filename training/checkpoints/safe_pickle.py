"""Foreign torch files as data: tensors and plain values are built, objects become records, and nothing is called.

torch.save writes a zip archive: ``data.pkl``, a pickle that says how to build the value, and a member a storage. A
pickle is a program, and pickle's own machine runs whatever functions it names. The machine here has none to run: a
name on its stack is a `Named`, and a call of one makes a tensor, a dict, a list or a `Record`, by the name, or is
refused. Of a class that `is_inert` remain the name and the attributes, in a `Record`; it is never imported.

Memory stays bounded by the file's own bytes: members must be stored uncompressed, be together no longer than the file,
and a tensor may not have more elements than its storage.
"""

import math
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgtool.wordnet.errors import CheckpointError, first_line

LONGEST_PICKLE = 64 << 20  # bytes; of a real one it is the names of a few thousand tensors, under 1 MB
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save's files began before torch 1.6

STORAGES = {
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.uint8,  # a byte of a file may be neither 0 nor 1, and no weights are bools
}
DICTS = {"collections.OrderedDict", "builtins.dict"}
LISTS = {"builtins.set", "builtins.frozenset", "builtins.list"}  # sets as lists: their items need no hash
PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
INERT_MODULES = ("ultralytics.", "torch.nn.modules.", "torch.nn.parallel.")
INERT = {
    *(f"builtins.{name}" for name in ("slice", "complex", "bytearray", "int", "float", "str", "bool", "tuple")),
    *(f"pathlib.{kind}{name}" for kind in ("", "Pure") for name in ("Path", "PosixPath", "WindowsPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath")),  # Python 3.13's
    *("collections.defaultdict", "collections.Counter", "collections.deque"),
    *("numpy.dtype", "numpy.ndarray", "_codecs.encode"),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("datetime.datetime", "datetime.date", "datetime.timedelta", "datetime.timezone"),
    *("types.SimpleNamespace", "argparse.Namespace"),
    *("torch.Size", "torch.device", "torch.nn.parameter.Parameter"),
    *(f"torch.{name}" for name in vars(torch) if isinstance(getattr(torch, name), torch.dtype)),
}


class Named:
    """A function or class that a pickle names; what stands here is the name alone."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Record:
    """What was an object: the name of its class and its attributes."""

    __slots__ = ("attributes", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.attributes: dict[str, Any] = {}

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


class _Storage:
    """A member of the archive, not yet read."""

    __slots__ = ("dtype", "key", "length")

    def __init__(self, dtype: torch.dtype, key: str, length: int) -> None:
        self.dtype, self.key, self.length = dtype, key, length  # length in elements


class _Refused(Exception):
    """What a file asks for and does not get."""


def is_inert(name: str) -> bool:
    """Whether objects of this class may stand as records. A dotted name within the module is never a class of these."""
    return name.startswith(INERT_MODULES) or name in INERT


def pickle_of(path: str | Path) -> bytes:
    """The bytes of a torch file's data.pkl, for a look at the names in it; b"" if it is no torch file."""
    try:
        with open(path, "rb") as file:
            if file.read(len(LEGACY)) == LEGACY:
                return file.read(1 << 20)  # the pickle comes first
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive, path).read("data.pkl")
    except Exception:  # what is wrong is said by those who read it in earnest
        return b""


def read(path: str | Path) -> Any:
    """What torch.save was given, with records for objects; tensors share their storages and lie on the CPU.

    Raises CheckpointError for a missing, truncated or foreign file, and for one that names a function or class which
    no weights need, naming that.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            if file.read(len(LEGACY)) == LEGACY:
                raise CheckpointError(
                    f"{path} is in the format of torch before 1.6, which is not read here: torch.load it where its "
                    "program is installed, and torch.save it again"
                )
        with zipfile.ZipFile(path) as archive:
            return _Machine(_Archive(archive, path)).run()
    except CheckpointError:
        raise
    except _Refused as error:
        raise CheckpointError(f"{path} is refused: {error}") from None
    except Exception as error:  # zipfile's, pickletools', torch's: many kinds, one meaning
        raise CheckpointError(f"{path} is not a whole torch file: {first_line(error)}") from error


class _Archive:
    """The members of a torch file, by their names within its one folder. Nothing is ever extracted."""

    def __init__(self, archive: zipfile.ZipFile, path: str | Path) -> None:
        self._archive = archive
        members = archive.infolist()
        if sum(member.file_size for member in members) > Path(path).stat().st_size:
            raise _Refused("its members claim more bytes than the file has")
        folders = [member.filename.removesuffix("data.pkl") for member in members if _is_pickle(member.filename)]
        if len(folders) != 1:
            raise ValueError(f"it has {len(folders)} data.pkl, not one")
        self._members = {
            member.filename.removeprefix(folders[0]): member
            for member in members
            if member.filename.startswith(folders[0])
        }
        self._storages: dict[str, bytearray] = {}
        if "byteorder" in self._members and self.read("byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")
        if self._members["data.pkl"].file_size > LONGEST_PICKLE:
            raise ValueError(f"its data.pkl is longer than {LONGEST_PICKLE:,} bytes")

    def read(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise ValueError(f"it has no member {name[:100]!r}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise _Refused(f"its member {name} is compressed, as torch never writes it")
        return self._archive.read(member)

    def storage(self, key: str) -> bytearray:
        if key not in self._storages:
            self._storages[key] = bytearray(self.read(f"data/{key}"))
        return self._storages[key]


def _is_pickle(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/data.pkl")


class _Machine:
    """Runs a pickle's opcodes, those that torch.save writes in protocols 2 to 5; pickletools says what each does."""

    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for opcode, argument, _ in pickletools.genops(self._archive.read("data.pkl")):
            name = opcode.name
            if name in _PUSH_ARGUMENT:
                self._stack.append(argument)
            elif name in _PUSH:
                self._stack.append(_PUSH[name]())
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name == "STOP":
                return self._stack.pop()
            elif name not in ("PROTO", "FRAME"):
                raise ValueError(f"its data.pkl has the opcode {name}, which torch.save does not write")
        raise ValueError("its data.pkl has no end")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def get(self, key: int) -> None:
        self._stack.append(self._memo[key])

    def put(self, key: int | None) -> None:
        self._memo[len(self._memo) if key is None else key] = self._stack[-1]

    def mark(self, _: None) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def after_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def last(self, count: int) -> tuple[Any, ...]:
        if len(self._stack) < count:
            raise ValueError("its data.pkl takes more from the stack than there is")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        return items

    def extend(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Record):  # what a record's class would have done with them is not ours to know
            raise ValueError("its data.pkl appends to what is no list")

    def set_items(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self._stack[-1]
        if isinstance(target, Record):
            return
        if type(target) is not dict or len(items) % 2:
            raise ValueError("its data.pkl sets items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Of other kinds of keys, tuples within tuples say, the mere hash can overflow the interpreter's stack.
            if not isinstance(key, str | int | float | bytes | None):
                raise ValueError(f"its data.pkl has a {type(key).__name__} for a key")
            target[key] = value

    def name(self, dotted: str | None) -> None:
        """``dotted`` is "module name", or the two are the last on the stack."""
        module, name = self.last(2) if dotted is None else dotted.split(" ", 1)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("its data.pkl names a function by what is no text")
        if dotted is not None:  # protocol 2 has Python 2's names
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        known = full in STORAGES or full in _CALLS or full in DICTS | LISTS | PARAMETERS
        if not known and (not is_inert(full) or "." in name):
            raise _Refused(f"it calls for {full[:100]!r}, which no weights need; nothing of it was run")
        self._stack.append(Named(full))

    def call(self, _: None) -> None:
        function, arguments = self.last(2)
        if not isinstance(function, Named) or not isinstance(arguments, tuple):
            raise ValueError("its data.pkl calls what is no function")
        name = function.name
        if name in _CALLS:
            self._stack.append(_CALLS[name](self, *arguments))
        elif name in PARAMETERS:
            self._stack.append(arguments[0])
        elif name in LISTS:
            self._stack.append(list(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else [])
        elif name in DICTS:
            self._stack.append({})
            self.set_items([part for pair in (arguments[0] if arguments else ()) for part in pair])
        elif name in STORAGES:
            raise ValueError("its data.pkl makes a storage of its own")
        else:
            self._stack.append(Record(name))

    def build(self, _: None) -> None:
        target, state = self.last(2)
        self._stack.append(target)
        if isinstance(target, Record) and isinstance(state, dict):
            target.attributes.update({key: value for key, value in state.items() if isinstance(key, str)})

    def storage(self, _: None) -> None:
        """A persistent id: ("storage", the storage's class, its key in the archive, device, number of elements)."""
        tag, kind, key, _device, length = self._stack.pop()
        if tag != "storage" or not isinstance(kind, Named) or not isinstance(key, str) or not isinstance(length, int):
            raise ValueError("its data.pkl refers to what is no storage")
        if kind.name not in STORAGES:
            raise ValueError(f"its tensors are of {kind.name}, which is not read here")
        self._stack.append(_Storage(STORAGES[kind.name], key, length))

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> Tensor:
        """torch._utils._rebuild_tensor_v2, which trusts its arguments, without the trust."""
        if not isinstance(storage, _Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise ValueError("its data.pkl makes a tensor of no storage")
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
            raise ValueError("a tensor has no proper size and stride")
        raw, elements = self._archive.storage(storage.key), math.prod(size)
        held = len(raw) // storage.dtype.itemsize
        if elements == 0:
            return torch.empty(size, dtype=storage.dtype)
        end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
        if max(elements, end, storage.length) > held:
            raise _Refused(
                f"a tensor claims {max(elements, end, storage.length):,} elements of the {held:,} in the file"
            )
        return torch.frombuffer(raw, dtype=storage.dtype, count=held).as_strided(size, stride, offset)

    def attribute(self, owner: Any, name: Any) -> None:
        """builtins.getattr: a fused convolution keeps its bound ``forward_fuse``; nothing else has cause to ask."""
        if not isinstance(owner, Record) or name != "forward_fuse":
            raise _Refused("it calls for 'builtins.getattr', which no weights need; nothing of it was run")


_PUSH_ARGUMENT = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_PUSH_ARGUMENT |= {"BINBYTES", "SHORT_BINBYTES"}
_PUSH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), _Machine.name),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: machine.extend(machine.after_mark())),
    "MARK": _Machine.mark,
    "APPEND": lambda machine, _: machine.extend(machine.last(1)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.after_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.last(2)),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.after_mark())),
    "FROZENSET": lambda machine, _: machine.push(machine.after_mark()),
    "TUPLE1": lambda machine, _: machine.push(machine.last(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.last(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.last(3)),
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _Machine.tensor,
    "builtins.getattr": _Machine.attribute,
}
