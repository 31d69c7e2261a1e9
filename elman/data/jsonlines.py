"""JSON that data comes in: a value a line, and what is wrong with one that is not as expected."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elman.data.place import Place
from elman.data.utf8 import read_lines, read_text
from elman.errors import ElmanError, brief, one_line


def read_values(path: Path, name: str) -> Iterator[tuple[Place, Any]]:
    """Yield the JSON value of every line, with its place; empty lines are passed over.

    Raises:
        ElmanError: a line is not JSON, or the file cannot be read.
    """
    for number, line in read_lines(path, name):
        if line.strip():
            place = Place(name, number)
            yield place, _parsed(line, str(place))


def read_value(path: Path, name: str) -> Any:
    """Return the JSON value that a whole file is.

    Raises:
        ElmanError: it is not JSON, or the file cannot be read.
    """
    return _parsed("".join(read_text(path, name=name)), name)


def text_of(value: Any, key: str, place: Place) -> str:
    """Return a text of a JSON object.

    Raises:
        ElmanError: there is no such key, or what it has is no text.
    """
    found = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(found, str):
        raise ElmanError(f'{place}: received {brief(value)}, expected {{"{key}": a text, …}}.')
    return found


def number_or_text(value: Any, key: str, place: Place) -> str | None:
    """Return a name or a finite number of a JSON object as text; None where the key is missing.

    Raises:
        ElmanError: what the key has is neither.
    """
    found = value.get(key)
    if found is None or isinstance(found, str):
        return found
    number = isinstance(found, int | float) and not isinstance(found, bool)
    if not number or not math.isfinite(found):
        raise ElmanError(
            f"{place}: `{key}` is {brief(found)}, expected a name in quotation marks or a number."
        )
    return str(found)


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    # Nesting too deep, and integers of too many digits, are errors of their own.
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else one_line(error)
        raise ElmanError(f"{place}: received {brief(text)}, expected JSON ({why}).") from None
