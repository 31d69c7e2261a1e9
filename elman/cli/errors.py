"""What went wrong: one sentence, and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer

from elman.allocation import is_out_of_memory
from elman.cli.messages import Typed, usage
from elman.errors import ElmanError, InputError


def exit_code(error: BaseException, typed: Typed) -> int | None:
    """Tell of an error that has ended a command, and give the code that says whose fault it is.

    Args:
        error: what was raised.
        typed: what was typed.

    Returns:
        0, done; 1, failed or interrupted: a file, a folder or this machine stands in the way;
        2, what was typed cannot be used: a command, an option, a value, a name; None where it is
        not for the command line to handle.
    """
    match error:
        case typer.Exit():
            return error.exit_code
        case BrokenPipeError():
            # The reader of our output has gone, as in `elman generate … | head`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        case InputError():
            return _tell(error, typed.spelled(str(error), everywhere=True), 2)
        case ElmanError():
            return _tell(error, typed.spelled(str(error)), 1)
        case KeyboardInterrupt() | typer.Abort():
            return _tell(error, "interrupted.", 1)
        case _ if type(error).__name__ == "NoArgsIsHelpError":
            print(error)  # the help
            return _tell(error, f"no command was given. See {typed.command} --help.", 2)
        case _ if hasattr(error, "format_message"):  # what the command-line parser raises
            return _tell(error, usage(error, typed), 2)
    return _fault(error)


def _fault(error: BaseException) -> int | None:
    """Say whose fault it is that nothing else has told of: the user's, the system's, elman's."""
    # They import torch, which is there already where a cell has failed.
    from elman.cells.lines import reason
    from elman.cells.registry import own_line

    line = own_line(error)
    if isinstance(error, OSError) and not line:
        where = f"{error.filename}: " if error.filename else ""
        return _tell(error, f"{where}{error.strerror or error}.", 1)
    # A cell's file may raise what it likes, SystemExit too.
    if not (line or isinstance(error, Exception)):
        return None
    if is_out_of_memory(error):
        return _tell(error, "there is not enough memory: lower --hidden, --batch or --steps.", 1)
    if line:
        return _tell(error, f"{line} failed ({reason(error)}): mend that line.", 2)
    return _tell(
        error, f"this is a fault in elman ({reason(error)}); ELMAN_DEBUG=1 shows where.", 1
    )


def _tell(error: Any, text: str, code: int) -> int:
    if os.environ.get("ELMAN_DEBUG"):
        traceback.print_exception(error)
    print(f"elman: {text}", file=sys.stderr)
    return code
