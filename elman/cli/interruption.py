"""Ctrl-C while the command line is imported, and after it has ended; SIGTERM while it runs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def importing() -> Iterator[None]:
    """While modules are imported for the command line, let Ctrl-C end the process without a word.

    Where elman is a library, Ctrl-C is its user's to handle.
    """
    before = let_go() if _is_command_line() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, which systems end processes by, be told and answered as Ctrl-C is.

    Unless somebody else handles it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _is_command_line() -> bool:
    """Whether this process is ``elman …`` or ``python -m elman …``."""
    program = (getattr(sys, "argv", None) or [""])[0]
    # While python -m imports the package, the name of the program is not known yet.
    if program == "-m":
        return "elman" in sys.orig_argv
    return os.path.basename(program) == "elman" or os.path.abspath(program) == _MODULE


_MODULE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "__main__.py")


def let_go() -> Callable[..., Any] | None:
    """Leave Ctrl-C to the system, unless somebody else handles it; returns what was before."""
    handler = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or handler is not signal.default_int_handler:
        return None
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return signal.default_int_handler
