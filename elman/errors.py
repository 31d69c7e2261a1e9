"""What elman tells a person: errors about what it cannot use, and warnings about what is slow."""

from __future__ import annotations

import math
import reprlib
import sys
from typing import Any


class ElmanError(Exception):
    """Something outside the program is wrong: a file, a folder, a run, the machine.

    The message is one sentence that says what was received, what was expected and what to do.
    The command line prints it without a traceback and exits with 1, whether a file is missing,
    empty, too short or damaged.
    """


class InputError(ElmanError, ValueError):
    """An argument, a setting or a name cannot be used (exit code 2 on the command line)."""


class EngineWarning(UserWarning):
    """A slower engine ran than the one that usually runs this cell; the message says why."""


def one_line(text: object, width: int = 200) -> str:
    """A text as part of a sentence: on one line, cut to ``width`` characters."""
    whole = " ".join(str(text).split())
    return whole if len(whole) <= width else f"{whole[: width - 1]}…"


def brief(value: Any, width: int = 60) -> str:
    """``value`` as a message shows it: as Python writes it, on one line, cut to ``width``."""
    shown = _Brief()
    shown.maxlevel, shown.maxstring, shown.maxother, shown.maxlong = 3, width, width, width
    try:
        return one_line(shown.repr(value), width)
    except Exception:  # a repr of somebody else's that fails
        return f"a {type(value).__name__}"


class _Brief(reprlib.Repr):
    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to write out integers of more than some thousands of digits.
        digits = round(value.bit_length() / math.log2(10))
        long = digits > self.maxlong
        return f"an integer of {digits:,} digits" if long else super().repr_int(value, level)


def callers_level() -> int:
    """How far up the stack the code stands that called elman's layers, for a warning to name."""
    frame, level = sys._getframe(1), 1
    between = ("elman.", "torch.", "lightning")
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(between):
        frame, level = frame.f_back, level + 1
    return level
