"""Where the command line begins and ends: quietly, whatever interrupts it or reads its output.

This module imports nothing that takes time, so that it is there before anything that does.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from elman.cli.interruption import importing, let_go

INTERRUPTED = 130
"""The exit code of a process that Ctrl-C has ended, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; with 130 where Ctrl-C comes before or after."""
    with importing():
        from elman.allocation import keep_freed_memory
        from elman.cli import program
    keep_freed_memory()
    _open_streams()
    # Without a home folder it says so, at length, in the midst of elman's own words.
    logging.getLogger("matplotlib").addFilter(lambda record: "MPLCONFIGDIR" not in str(record.msg))
    try:
        code = program.run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # of standard error: who should be told?
        code = 1
    let_go()
    whole = [_flush(stream) for stream in (sys.stdout, sys.stderr)]
    sys.exit(code if all(whole) else code or 1)


def _open_streams() -> None:
    """Make the standard streams usable: closed ones lead nowhere, and no letter is fatal."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would be taken for it
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # Some programs put streams of their own there.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _flush(stream: IO[str]) -> bool:
    """Write what is left; false where it is lost. That nobody reads it is no loss."""
    try:
        stream.flush()
        return True
    except OSError as error:
        with suppress(OSError, ValueError):
            # Python itself would try again, and complain in words of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if not isinstance(error, BrokenPipeError):
                print(f"elman: {error.strerror or error}.", file=sys.stderr)
        return isinstance(error, BrokenPipeError)
