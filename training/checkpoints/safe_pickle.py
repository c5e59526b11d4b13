"""Reads foreign torch files as data: builds tensors and plain values, keeps objects as `PickledObject`, calls nothing.

torch.save writes a zip archive: ``data.pkl``, a pickle that describes the value, and one member per tensor storage. A
pickle is a program, and Python's unpickler calls whatever functions it names. The unpickler here calls none: a name on
its stack is a `GlobalName`. Calling one makes a tensor, a dict, a list or a `PickledObject`, depending on the name, or
is refused. A class that `is_allowed_class` accepts is never imported: a `PickledObject` holds its name.

Memory and time are bounded by the file's size. The archive is checked first (`imgtool.training.checkpoints.archive`),
a tensor may not have more elements than its storage, and calls may not copy more items in total than the pickle has
bytes: without this limit, nested copies of a list in the memo grow exponentially.
"""

import math
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgtool.training.checkpoints.archive import LEGACY_MAGIC, TorchArchive
from imgtool.wordnet.errors import CheckpointError, ImgtoolError, first_line

MAX_OPCODES = 2_000_000  # of the pickle, each of which makes at most one value; a few thousand tensors take 100,000
MAX_INT_KEY = (1 << 61) - 1  # integers from here on have the hashes of smaller ones: they could make a dict very slow
MAX_DIMS = 32  # of a tensor

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
    "torch.BoolStorage": torch.uint8,  # as bytes: the file may have values other than 0 and 1; no weights are bools
}
DICTS = {"collections.OrderedDict", "builtins.dict"}
LISTS = {"builtins.set", "builtins.frozenset", "builtins.list"}  # sets as lists: their items need no hash
PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
ALLOWED_PREFIXES = ("ultralytics.", "torch.nn.modules.", "torch.nn.parallel.")
ALLOWED_CLASSES = {
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


class GlobalName:
    """The dotted name of a function or class, which the pickle's GLOBAL opcode would import."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class PickledObject:
    """A pickled object that was not rebuilt: the dotted name of its class, and its attributes."""

    __slots__ = ("attributes", "class_name")

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name
        self.attributes: dict[str, Any] = {}

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


class _Storage:
    """A tensor storage: a member of the archive that is not read yet. ``length`` is in elements."""

    __slots__ = ("dtype", "key", "length")

    def __init__(self, dtype: torch.dtype, key: str, length: int) -> None:
        self.dtype, self.key, self.length = dtype, key, length


def is_allowed_class(name: str) -> bool:
    """Whether objects of this class may become a `PickledObject`."""
    return name.startswith(ALLOWED_PREFIXES) or name in ALLOWED_CLASSES


def pickle_of(path: str | Path) -> bytes:
    """Returns the bytes of a torch file's data.pkl, to search for names in it; b"" if it is not a torch file."""
    try:
        with open(path, "rb") as file:
            if file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC:
                return file.read(1 << 20)  # the pickle comes first
        with TorchArchive(path) as archive:
            return archive.pickle()
    except (OSError, ValueError, ImgtoolError):  # `read` reports what is wrong with the file
        return b""


def read(path: str | Path) -> Any:
    """Returns the value that torch.save was given, with a `PickledObject` for each object. Tensors are on the CPU and
    share storages as they did.

    The value may contain itself, or the same list many times: do not print it, copy it or search it to its depth.
    Raises CheckpointError for a missing or truncated file, for one that is not a torch file, and for one that names a
    function or class which weights do not need. The message has that name.
    """
    try:
        with TorchArchive(path) as archive:
            return _Unpickler(archive).run()
    except CheckpointError as error:
        raise CheckpointError(f"{path} is refused: {error}") from None
    except Exception as error:  # pickletools and torch raise many classes for a damaged file
        raise CheckpointError(f"{path} is damaged or not a torch file: {first_line(error)}") from error


class _Unpickler:
    """Executes the pickle opcodes that torch.save writes in protocols 2 to 5; pickletools documents each."""

    def __init__(self, archive: TorchArchive) -> None:
        self._archive = archive
        self._pickled = archive.pickle()
        self._copied = 0  # items of containers
        self._storages: dict[str, bytearray] = {}
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []  # the stack below each mark
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self._pickled)):
            if count == MAX_OPCODES:
                raise CheckpointError(f"its data.pkl has more than {MAX_OPCODES:,} opcodes")
            name = opcode.name
            if name in _PUSH_ARGUMENT:
                self._stack.append(argument)
            elif name in _PUSH:
                self._stack.append(_PUSH[name]())
            elif name in _OPCODES:
                _OPCODES[name](self, argument)
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
            raise ValueError("its data.pkl pops more values than the stack has")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        return items

    def count_copies(self, items: Sized) -> None:
        """Counts the items of a container that is about to be copied. Raises CheckpointError if there are more than a
        file that contains each only once can have."""
        self._copied += len(items)
        if self._copied > len(self._pickled):
            raise CheckpointError("its data.pkl copies more values than it has bytes")

    def extend(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, PickledObject):  # ignored: what its class would do with the items is unknown
            raise ValueError("its data.pkl appends to a value that is not a list")

    def set_items(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self._stack[-1]
        if isinstance(target, PickledObject):
            return
        if type(target) is not dict or len(items) % 2:
            raise ValueError("its data.pkl sets items of a value that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # hashing other keys, such as deeply nested tuples, can overflow the interpreter's stack
            if not isinstance(key, str | int | float | bytes | None):
                raise ValueError(f"its data.pkl has a {type(key).__name__} as a dict key")
            if isinstance(key, int) and abs(key) >= MAX_INT_KEY:
                raise ValueError("its data.pkl has an integer of more than 60 bits as a dict key")
            target[key] = value

    def name(self, dotted: str | None) -> None:
        """``dotted`` is "module name"; if it is None, the two are on top of the stack."""
        module, name = self.last(2) if dotted is None else dotted.split(" ", 1)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("its data.pkl names a function by a value that is not a string")
        if dotted is not None:  # protocol 2 uses Python 2's names
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        known = full in STORAGES or full in _CALLS or full in DICTS | LISTS | PARAMETERS
        if not known and (not is_allowed_class(full) or "." in name):  # os.system in ultralytics.utils is not a class
            raise CheckpointError(
                f"it calls for {full[:100]!r}, which weights do not need; nothing of the file was run"
            )
        self._stack.append(GlobalName(full))

    def call(self, _: None) -> None:
        function, arguments = self.last(2)
        if not isinstance(function, GlobalName) or not isinstance(arguments, tuple):
            raise ValueError("its data.pkl calls a value that is not a function")
        name = function.name
        if name in _CALLS:
            self._stack.append(_CALLS[name](self, *arguments))
        elif name in PARAMETERS:
            if not arguments:
                raise ValueError("its data.pkl makes a parameter without a tensor")
            self._stack.append(arguments[0])
        elif name in LISTS | DICTS:
            items = arguments[0] if arguments else []
            if not isinstance(items, list | tuple):
                raise ValueError(f"its data.pkl makes a {name} of a {type(items).__name__}")
            self.count_copies(items)
            if name in LISTS:
                self._stack.append(list(items))
            elif all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in items):
                self._stack.append({})
                self.set_items([part for pair in items for part in pair])
            else:
                raise ValueError(f"its data.pkl makes a {name} of items that are not pairs")
        elif name in STORAGES:
            raise ValueError("its data.pkl makes a storage that is not a member of the archive")
        else:
            self._stack.append(PickledObject(name))

    def build(self, _: None) -> None:
        target, state = self.last(2)
        self._stack.append(target)
        if isinstance(target, PickledObject) and isinstance(state, dict):
            self.count_copies(state)
            target.attributes.update({key: value for key, value in state.items() if isinstance(key, str)})

    def storage(self, _: None) -> None:
        """Pushes the storage of a persistent id: ("storage", its class, its key in the archive, device, length)."""
        tag, kind, key, _device, length = self._stack.pop()
        if (
            tag != "storage"
            or not isinstance(kind, GlobalName)
            or not isinstance(key, str)
            or not isinstance(length, int)
        ):
            raise ValueError("its data.pkl has a persistent id that is not a storage")
        if kind.name not in STORAGES:
            raise ValueError(f"its tensors are of {kind.name}, which is not supported")
        self._stack.append(_Storage(STORAGES[kind.name], key, length))

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> Tensor:
        """Does what torch._utils._rebuild_tensor_v2 does, after checking the arguments, which torch trusts."""
        if not isinstance(storage, _Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise ValueError("its data.pkl makes a tensor without a storage")
        numbers = (offset, *size, *stride)
        if (
            len(size) != len(stride)
            or len(size) > MAX_DIMS
            or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers)
        ):
            raise ValueError("a tensor has an invalid size or stride")
        if storage.key not in self._storages:
            self._storages[storage.key] = bytearray(self._archive.read(f"data/{storage.key}"))
        raw, elements = self._storages[storage.key], math.prod(size)
        held = len(raw) // storage.dtype.itemsize
        if elements == 0:
            return torch.empty(size, dtype=storage.dtype)
        end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
        if max(elements, end, storage.length) > held:
            raise CheckpointError(
                f"a tensor claims {max(elements, end, storage.length):,} elements of the {held:,} in the file"
            )
        return torch.frombuffer(raw, dtype=storage.dtype, count=held).as_strided(size, stride, offset)

    def attribute(self, owner: Any, name: Any) -> None:
        """builtins.getattr: allowed only for ``forward_fuse``, the bound method that a fused convolution keeps."""
        if not isinstance(owner, PickledObject) or name != "forward_fuse":
            raise CheckpointError(
                "it calls for 'builtins.getattr', which weights do not need; nothing of the file was run"
            )


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
_OPCODES: dict[str, Callable[[_Unpickler, Any], None]] = {
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Unpickler.get),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _Unpickler.put),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), _Unpickler.name),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Unpickler.call),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda self, _: self.extend(self.after_mark())),
    "MARK": _Unpickler.mark,
    "APPEND": lambda self, _: self.extend(self.last(1)),
    "SETITEMS": lambda self, _: self.set_items(self.after_mark()),
    "SETITEM": lambda self, _: self.set_items(self.last(2)),
    "TUPLE": lambda self, _: self.push(tuple(self.after_mark())),
    "FROZENSET": lambda self, _: self.push(self.after_mark()),
    "TUPLE1": lambda self, _: self.push(self.last(1)),
    "TUPLE2": lambda self, _: self.push(self.last(2)),
    "TUPLE3": lambda self, _: self.push(self.last(3)),
    "BUILD": _Unpickler.build,
    "BINPERSID": _Unpickler.storage,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _Unpickler.tensor,
    "builtins.getattr": _Unpickler.attribute,
}
