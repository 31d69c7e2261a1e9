"""Where a record stands in its file."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Where a record stands: the file, as it was named, and its line, from 1.

    Attributes:
        unit: what is counted, for a file without lines.
    """

    file: str
    line: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.line:,}"
