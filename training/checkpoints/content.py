"""Checks the content of a checkpoint, key by key, before anything uses it: a file may have any value under any key."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imgtool.training.models.yolov8 import STRIDE
from imgtool.training.recipes import MAX_IMGSZ, check_types
from imgtool.wordnet.errors import CheckpointError, InputError

MAX_TEXT = 10_000  # characters of a name or a setting
MAX_PLAIN = 100_000  # values within a setting or a metric
MAX_PROCESSES = 1 << 16
METER = {"steps", "steps_read", "images", "bad_steps", "loss_sum", "waited", "unread", "seconds"}
METRICS = {"top1", "top5", "loss", "images", "seconds", "hierarchy", "classes"}

BEST = frozenset(METRICS - {"hierarchy", "classes"})


class Rule(NamedTuple):
    """What a key must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def is_text(value: Any) -> bool:
    """Whether this is a string of at most MAX_TEXT characters."""
    return isinstance(value, str) and len(value) <= MAX_TEXT


def is_number(value: Any) -> bool:
    """Whether this is an integer of at most 64 bits or a float."""
    return isinstance(value, float) or is_count(value, -(1 << 63))


def is_count(value: Any, least: int = 0, most: int = (1 << 63) - 1) -> bool:
    """Whether this is an integer in least … most, and not a bool."""
    return type(value) is int and least <= value <= most


def is_plain(value: Any) -> bool:
    """Whether this consists of None, bools, numbers, strings, lists, tuples and dicts with string keys, a limited
    number of them, each as often as it occurs: a list may be in a pickle many times, or contain itself."""
    left, count = [value], 0
    while left:
        item = left.pop()
        count += 1
        if count > MAX_PLAIN:
            return False
        if isinstance(item, dict):
            if not all(map(is_text, item)) or len(item) > MAX_PLAIN:
                return False
            left.extend(item.values())
        elif isinstance(item, list | tuple):
            if len(item) > MAX_PLAIN:
                return False
            left.extend(item)
        elif not (item is None or isinstance(item, bool) or is_number(item) or is_text(item)):
            return False
        if len(left) > MAX_PLAIN:
            return False
    return True


def is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def is_state(value: Any) -> bool:
    """Whether this is a state_dict."""
    return isinstance(value, dict) and all(is_text(key) and isinstance(value[key], Tensor) for key in value)


def is_metrics(value: Any, required: frozenset[str] = frozenset({"top1", "top5"})) -> bool:
    """Whether this is the dict of a `Metrics` of training.evaluation, with at least the ``required`` keys."""
    return (
        isinstance(value, dict)
        and required <= value.keys() <= METRICS
        and all(is_number(value[key]) for key in value.keys() - {"hierarchy", "classes"})
        and (value.get("classes") is None or is_count(value["classes"]))
        and (value.get("hierarchy") is None or (isinstance(value["hierarchy"], dict) and is_plain(value["hierarchy"])))
    )


def _is_optimizer(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    states, groups = value.get("state"), value.get("param_groups")
    return (
        isinstance(states, dict)
        and all(is_count(key) and isinstance(state, dict) for key, state in states.items())
        and all(
            is_text(key) and (item is None or is_number(item) or isinstance(item, Tensor))
            for state in states.values()
            for key, item in state.items()
        )
        and isinstance(groups, list)
        and all(isinstance(group, dict) and is_plain(group) for group in groups)
    )


def _is_random_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_bytes(value.get("cpu"))
        and isinstance(value.get("cuda"), list)
        and all(map(_is_bytes, value["cuda"]))
    )


def _is_bytes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.dim() == 1


def _is_meter(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == METER
        and all(is_number(value[key]) for key in METER - {"unread"})
        and all(is_count(value[key]) for key in ("steps", "steps_read", "images", "bad_steps"))
        and isinstance(value["unread"], list)
        and all(map(is_number, value["unread"]))
        and 0 <= value["steps"] - value["steps_read"] <= len(value["unread"])
    )


def _is_list(value: Any, holds: Callable[[Any], bool]) -> bool:
    """Whether this is a list of one or more items for which ``holds`` is true."""
    return isinstance(value, list) and 0 < len(value) <= MAX_PROCESSES and all(map(holds, value))


RULES = {
    "size": Rule("the name of a network", is_text),
    "dropout": Rule("a number in [0, 1)", lambda value: is_number(value) and 0 <= value < 1),
    "imgsz": Rule(f"an integer in {STRIDE}..{MAX_IMGSZ}", lambda value: is_count(value, STRIDE, MAX_IMGSZ)),
    "wnids": Rule("a list of strings", is_texts),
    "names": Rule("a list of strings", is_texts),
    "epoch": Rule("a number of epochs", is_count),
    "metrics": Rule("None or the metrics of an epoch", lambda value: value is None or is_metrics(value)),
    "recipe": Rule("a dict of settings", lambda value: isinstance(value, dict) and is_plain(value)),
    "ema": Rule("a dict of tensors", is_state),
    "resume": Rule("None or the state of a training", lambda value: value is None or isinstance(value, dict)),
}
RESUME_RULES = {
    "model": Rule("a dict of tensors", is_state),
    "optimizer": Rule("the state of an optimizer", _is_optimizer),
    "scaler": Rule("None or a dict", lambda value: value is None or (isinstance(value, dict) and is_plain(value))),
    "ema_steps": Rule("a number of steps", is_count),
    "rng": Rule("a list of random states, one per process", lambda value: _is_list(value, _is_random_state)),
    "loader": Rule("a dict of settings", lambda value: isinstance(value, dict) and is_plain(value)),
    "meters": Rule(
        "a list of meters, one per process",
        lambda value: _is_list(value, lambda item: item is None) or _is_list(value, _is_meter),
    ),
    "best": Rule("None or all metrics of an epoch", lambda value: value is None or is_metrics(value, BEST)),
    "seconds": Rule("a number", lambda value: is_number(value) and math.isfinite(value)),
}
KEYS = RULES.keys()


def check(content: dict[Any, Any]) -> None:
    """Raises CheckpointError, which names the key, if a key is missing or its value has another type."""
    _check(content, RULES, "")
    if len(content["wnids"]) != len(content["names"]):
        raise CheckpointError(f"names has {len(content['names'])} entries, but wnids has {len(content['wnids'])}")
    try:
        check_types(content["recipe"])
    except InputError as error:
        raise CheckpointError(f"recipe: {error}") from None
    if not 0 <= content["recipe"].get("drop_path", 0) < 1:
        raise CheckpointError(f"recipe: drop_path must be in [0, 1), not {content['recipe']['drop_path']!r}")
    resume = content["resume"]
    if resume is not None:
        _check(resume, RESUME_RULES, "resume.")
        if len(resume["rng"]) != len(resume["meters"]):
            raise CheckpointError(f"resume.rng is of {len(resume['rng'])} processes, meters of {len(resume['meters'])}")


def _check(content: dict[Any, Any], rules: dict[str, Rule], prefix: str) -> None:
    if missing := rules.keys() - content.keys():
        raise CheckpointError(f"it lacks the keys {', '.join(prefix + key for key in sorted(missing))}")
    for key, rule in rules.items():
        if not rule.holds(content[key]):
            raise CheckpointError(f"{prefix}{key} must be {rule.words}, not {describe(content[key])}")


def describe(value: Any) -> str:
    """Returns a number or a short string as in Python, and what any other value is."""
    if value is None or isinstance(value, bool) or is_number(value) or (isinstance(value, str) and len(value) < 50):
        return repr(value)
    return f"a {type(value).__name__} of another form"
