"""The command line: ``elman``."""

from __future__ import annotations

from collections.abc import Sequence


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command as it is typed, ``sys.argv`` unless given; returns its exit code."""
    from elman.cli import program

    return program.run(arguments)
