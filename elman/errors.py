"""What elman tells a person whose input it cannot use."""

from __future__ import annotations


class ElmanError(Exception):
    """Something outside the program is wrong: a file, a setting, a run folder.

    The message is one sentence that says what was received, what was expected and what to do.
    The command line prints it without a traceback and exits with 1.
    """


class InputError(ElmanError, ValueError):
    """An argument or a setting cannot be used (exit code 2 on the command line)."""
