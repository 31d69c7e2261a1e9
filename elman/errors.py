"""What elman tells a person whose input it cannot use."""

from __future__ import annotations


class ElmanError(Exception):
    """Something outside the program is wrong: a file, a folder, a run, the machine.

    The message is one sentence that says what was received, what was expected and what to do.
    The command line prints it without a traceback and exits with 1, whether a file is missing,
    empty, too short or damaged.
    """


class InputError(ElmanError, ValueError):
    """An argument, a setting or a name cannot be used (exit code 2 on the command line)."""
