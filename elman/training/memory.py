"""How much memory this process takes, and has taken at most; what could never fit into it."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from elman.errors import InputError

_Module = TypeVar("_Module", bound=nn.Module)

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Memory:
    """The growth of this process's resident memory since the object was made, in bytes.

    Freed memory is given back first, so that what follows shows. To about 0.3 MB; on Linux alone,
    elsewhere all is None.
    """

    def __init__(self) -> None:
        gc.collect()
        self.known = _STATUS.exists()
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            _CLEAR.write_bytes(b"5")  # the peak starts anew from what is resident now
        except (OSError, AttributeError):
            self.known = False
        self._start = _read("VmRSS") if self.known else 0

    def now(self) -> int | None:
        """The growth up to now."""
        return _read("VmRSS") - self._start if self.known else None

    def peak(self) -> int | None:
        """The largest growth so far."""
        return max(0, _read("VmHWM") - self._start) if self.known else None


def _read(field: str) -> int:
    lines = _STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def if_it_fits(make: Callable[[], _Module]) -> _Module:
    """The model that ``make`` makes, unless its weights alone could never be trained here.

    It is made without memory first, so that a size with some digits too many is told at once,
    not by a machine that swaps or a process that is killed.

    Raises:
        InputError: the weights and their gradients need more memory than this machine has.
    """
    there = total()
    needed = 2 * _bytes_of(make)
    if there is not None and needed > there:
        raise InputError(
            f"the model's weights and their gradients need {_gigabytes(needed)}, and this machine "
            f"has {_gigabytes(there)}: lower its sizes, such as `hidden` or `layers`."
        )
    return make()


def total() -> int | None:
    """The memory that this process may ever have, in bytes; None where the system does not say."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        return min(physical, int(_LIMIT.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # no control group, or one without a limit
        return physical


def _bytes_of(make: Callable[[], nn.Module]) -> float:
    """What a model's weights take; 0 where it cannot be made without memory."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = make()
        return sum(p.numel() * p.element_size() for p in model.parameters())
    except Exception as error:
        # A size that 64 bits do not hold is one that no machine has. What else is wrong with the
        # model shows when it is made.
        return float("inf") if "overflow" in str(error).lower() else 0


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.3g} GB" if size < 1e18 else "more than 64 bits can count"
