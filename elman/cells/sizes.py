"""Sizes and counts as arguments: whole numbers, whoever's."""

from __future__ import annotations

import operator
from typing import Any

from elman.errors import InputError


def positive(name: str, value: Any) -> int:
    """``value`` as an int, numpy's integers among others.

    Raises:
        InputError: it is no positive integer.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise InputError(f"{name} must be a positive integer, received {value!r}.")
    return number
