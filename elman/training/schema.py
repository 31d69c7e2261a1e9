"""What a file must hold: rules that are put together, and one sentence where one is broken.

A rule takes a value and the name of its field, and raises :class:`Mismatch` if they do not fit::

    point = record({"epoch": whole(1), "loss": number()}, others=number())
    point({"epoch": "x", "loss": 0.5}, "")  # Mismatch: 'epoch' is 'x', expected a whole number …

That JSON, TOML or safetensors could be parsed says nothing about what is in them. Whatever is read
from a run goes through a rule before anything is computed with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from elman.errors import brief

Rule = Callable[[Any, str], None]

LARGEST = 2**63 - 1
"""The largest whole number that torch, and most of what reads JSON, can hold."""


class Mismatch(ValueError):
    """A field that does not fit its rule; the message names it, but not the file."""


def mismatch(field: str, value: Any, expected: str) -> Mismatch:
    """The error of a field that has this value."""
    return Mismatch(f"{field!r} is {_shown(value)}, expected {expected}")


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return brief(value)


def whole(least: int = 0, most: int = LARGEST) -> Rule:
    """A whole number within bounds; true and false are none."""

    def rule(value: Any, field: str) -> None:
        if type(value) is not int or not least <= value <= most:
            upper = "" if most == LARGEST else f" and at most {most}"
            raise mismatch(field, value, f"a whole number of at least {least}{upper}")

    return rule


def number(least: float = -math.inf, finite: bool = True) -> Rule:
    """A number within bounds: a finite one, unless infinity is a value like any other."""

    def rule(value: Any, field: str) -> None:
        known = type(value) is float or (type(value) is int and abs(value) <= LARGEST)
        if not known or math.isnan(value) or (finite and math.isinf(value)) or value < least:
            kind = "a finite number" if finite else "a number"
            raise mismatch(
                field, value, kind + (f" of at least {least:g}" if least > -1e308 else "")
            )

    return rule


def text(*choices: str) -> Rule:
    """A text, of these alone where there are some. No name of a file has a NUL in it."""

    def rule(value: Any, field: str) -> None:
        if not isinstance(value, str) or "\0" in value or (choices and value not in choices):
            raise mismatch(field, value, f"one of {', '.join(choices)}" if choices else "a text")

    return rule


def flag(value: Any, field: str) -> None:
    """The rule of true and false."""
    if not isinstance(value, bool):
        raise mismatch(field, value, "true or false")


def anything(value: Any, field: str) -> None:
    """The rule that nothing breaks."""


def optional(inner: Rule) -> Rule:
    """None, or what ``inner`` allows."""

    def rule(value: Any, field: str) -> None:
        if value is not None:
            inner(value, field)

    return rule


def listed(inner: Rule, least: int = 0) -> Rule:
    """A list of at least so many values, each as ``inner`` allows."""

    def rule(value: Any, field: str) -> None:
        if not isinstance(value, list) or len(value) < least:
            raise mismatch(field, value, f"a list of at least {least}" if least else "a list")
        for k, item in enumerate(value):
            inner(item, f"{field}[{k}]")

    return rule


def record(
    fields: Mapping[str, Rule],
    optional: Mapping[str, Rule] | None = None,
    others: Rule | None = None,
) -> Rule:
    """A mapping by name.

    Args:
        fields: the rules of those that must be there.
        optional: the rules of those that may be there.
        others: the rule of all others; without it there must be none.
    """
    rules = {**(optional or {}), **fields}

    def rule(value: Any, field: str) -> None:
        if not isinstance(value, dict):
            raise mismatch(field or "it", value, "values by name")
        for name in fields:
            if name not in value:
                raise Mismatch(f"{_inside(field, name)!r} is missing")
        for name, item in value.items():
            inner = rules.get(name, others) if isinstance(name, str) else others
            if inner is None:
                raise Mismatch(
                    f"{brief(_inside(field, name))} is unknown, expected {_names(rules)}"
                )
            inner(item, _inside(field, name))

    return rule


def tensor(
    like: Tensor, *, cast: bool = False, infinite: bool = False, least: float = -math.inf
) -> Rule:
    """A tensor of the shape and type of another, every entry a finite number.

    Args:
        like: the other.
        cast: another precision of the same kind is allowed, such as float64 for float32.
        infinite: entries may be infinite, but not NaN.
        least: what no entry is below.
    """
    shape, dtype = tuple(like.shape), like.dtype

    def rule(value: Any, field: str) -> None:
        fits = isinstance(value, Tensor) and tuple(value.shape) == shape
        if not fits or not _same_kind(value.dtype, dtype, cast):
            raise mismatch(field, value, _shown(like))
        if not bool((value == value if infinite else value.isfinite()).all()):
            what = "NaN" if infinite else "infinite numbers or NaN"
            raise Mismatch(f"{field!r} has {what}, expected finite numbers alone")
        if least > -math.inf and bool((value < least).any()):
            found = float(value.min())
            raise Mismatch(f"{field!r} has {found:.4g}, expected no less than {least:g}")

    return rule


def _same_kind(a: torch.dtype, b: torch.dtype, cast: bool) -> bool:
    kinds = ("is_floating_point", "is_complex")
    return a == b or (
        cast
        and torch.bool not in (a, b)
        and all(getattr(a, kind) == getattr(b, kind) for kind in kinds)
    )


def _inside(field: str, name: Any) -> str:
    return f"{field}.{name}" if field else str(name)


def _names(rules: Iterable[str], most: int = 8) -> str:
    names = list(rules)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
