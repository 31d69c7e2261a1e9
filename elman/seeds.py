"""What fixes random draws."""

from __future__ import annotations

import operator
from typing import SupportsIndex

import torch

from elman.errors import InputError

BELOW = 2**63
"""Seeds are whole numbers from 0 up to, and without, this one."""


def checked_seed(seed: SupportsIndex) -> int:
    """``seed`` as PyTorch takes it.

    Raises:
        InputError: it is no whole number from 0 to 2⁶³ − 1.
    """
    try:
        number = operator.index(seed)
        shown = str(number) if abs(number) < 10**40 else "one of more than 40 digits"
    except TypeError:
        number, shown = -1, repr(seed)
    if isinstance(seed, bool) or not 0 <= number < BELOW:
        raise InputError(f"seed must be a whole number from 0 to 2**63 - 1, received {shown}.")
    return number


def generator(seed: SupportsIndex) -> torch.Generator:
    """A stream of random numbers of its own, on the CPU.

    Raises:
        InputError: see :func:`checked_seed`.
    """
    return torch.Generator().manual_seed(checked_seed(seed))
