"""Labelled inputs: texts or real-valued sequences, each with the name of a class or a number."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from elman.data.jsonlines import number_or_text, read_values, text_of
from elman.data.place import Place
from elman.data.utf8 import ending_of, read_lines, read_text
from elman.errors import ElmanError, InputError, brief

if TYPE_CHECKING:
    import numpy as np

_logger = logging.getLogger("elman")


class Labelled(NamedTuple):
    """An input and what is to be told of it.

    Attributes:
        input: a text, or a sequence, float32 (T, F).
        label: the name of its class, or a number as it is written; None where it is to be told.
        place: where it was read.
    """

    input: str | np.ndarray
    label: str | None
    place: Place


def name_of(record: Labelled) -> str:
    """Return the label as the name of a class.

    Raises:
        ElmanError: the record has none.
    """
    if record.label is None:
        raise ElmanError(f"{record.place}: there is no label, expected one to learn from.")
    return record.label


def number_of(record: Labelled) -> float:
    """Return the label as a number.

    Raises:
        ElmanError: it is none, or not finite.
    """
    return _number(name_of(record), "the label", record.place)


def read_table(
    path: Path, name: str, text_column: str | None = None, label_column: str | None = None
) -> Iterator[Labelled]:
    """Read texts, or sequences in long format, from a table whose first line names its columns.

    Tabs separate the columns, if the first line has any, and quotation marks mean nothing then;
    otherwise the file is CSV. A table with a column ``id`` and without one of texts is in long
    format: each line is a step of the sequence that ``id`` names, all columns but ``id``,
    ``time``, by which steps are sorted, and the label's are its features.

    Args:
        path: the file.
        name: what errors call it.
        text_column: default ``text``, or the other one of two columns.
        label_column: default ``label``, or the other one of two columns.

    Raises:
        InputError: the header does not say which column is which.
        ElmanError: a line has more or fewer columns than the header, or a number is none.
    """
    rows = _rows(path, name)
    place, header = next(rows, (None, []))
    if place is None:
        return iter(())
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise ElmanError(f"{place}: the column {brief(twice[0])} is there twice; rename one.")
    if "id" in header and text_column is None and "text" not in header:
        return _long_format(rows, header, place, label_column or "label")
    return _texts(rows, header, *_columns(header, text_column, label_column, place))


def read_jsonl(
    path: Path, name: str, text_column: str | None = None, label_column: str | None = None
) -> Iterator[Labelled]:
    """Read a JSON object a line: ``{"text": …, "label": …}``, the label a name or a number.

    Raises:
        ElmanError: a line is something else.
    """
    label = label_column or "label"
    for place, value in read_values(path, name):
        text = text_of(value, text_column or "text", place)
        yield Labelled(text, number_or_text(value, label, place), place)


def read_lines_of_text(path: Path, name: str) -> Iterator[Labelled]:
    """Read a text a line, without labels; empty lines are texts, too."""
    for number, line in read_lines(path, name):
        yield Labelled(line, None, Place(name, number))


def read_folder(path: Path, name: str) -> Iterator[Labelled]:
    """Read the texts of a folder of folders: ``class/file.txt``, packed or not.

    Raises:
        ElmanError: no folder in it holds such a text.
    """
    empty, others = True, 0
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
            if ending_of(file) != ".txt":
                others += 1
                continue
            place = Place(str(Path(name, file.relative_to(path))), 1)
            empty = False
            yield Labelled("".join(read_text(file, name=place.file)), folder.name, place)
    if empty:
        raise ElmanError(f"{name} has no texts as class/file.txt, expected some in that order.")
    if others:
        _logger.info("%s: %s files left out, which do not end in .txt", name, f"{others:,}")


def read_array(path: Path, name: str) -> Iterator[Labelled]:
    """Read sequences of one array: .npz with X (N, T, F) and y (N), or .npy with X alone.

    X may be (N, T) for one feature. In .npz ``lengths`` (N) may say how many steps of each count.

    Raises:
        ElmanError: the file is damaged, or an array is missing or has the wrong shape or type.
    """
    import numpy as np

    arrays = _arrays(path, name)
    x = _numeric(arrays, "X", name)
    x = x[:, :, None] if x.ndim == 2 else x
    if x.ndim != 3:
        raise ElmanError(f"{name}: X has the shape {x.shape}, expected (N, T, F) or (N, T).")
    labels, lengths = arrays.get("y"), np.full(len(x), x.shape[1])
    if "lengths" in arrays:
        lengths = _numeric(arrays, "lengths", name)
    for key, array in (("y", labels), ("lengths", lengths)):
        if array is not None and array.shape != x.shape[:1]:
            raise ElmanError(f"{name}: {key} has the shape {array.shape}, expected {x.shape[:1]}.")
    for k, sequence in enumerate(x):
        place = Place(name, k + 1, "sequence")
        length = lengths[k]
        if not 1 <= length <= x.shape[1] or length != int(length):
            raise ElmanError(
                f"{place}: its length is {length}, expected 1 to {x.shape[1]:,} steps."
            )
        sequence = sequence[: int(length)]
        if not np.isfinite(sequence).all():
            raise ElmanError(f"{place}: a step is not finite, expected numbers; leave it out.")
        yield Labelled(sequence, None if labels is None else str(labels[k]), place)


def read_blocks(
    path: Path, name: str, closing: Sequence[float], labels: Iterable[str]
) -> Iterator[Labelled]:
    """Read sequences a step a line, each closed by a line of its own.

    Args:
        path, name: the file, and what errors call it.
        closing: the numbers of the line that closes a sequence.
        labels: of the sequences, in order.

    Raises:
        ElmanError: a line is not as wide as the closing one, the file ends within a sequence, or
            there are more or fewer sequences than labels.
    """
    steps: list[list[float]] = []
    expected = list(labels)
    found = 0
    for number, line in read_lines(path, name):
        place = Place(name, number)
        step = [_number(value, "a feature", place) for value in line.split()]
        if step and len(step) != len(closing):
            raise ElmanError(f"{place}: {len(step)} numbers, expected {len(closing)}.")
        if step == [*closing]:
            label = expected[found] if found < len(expected) else None
            first = Place(name, number - len(steps))
            yield Labelled(_sequence(steps, place), label, first)
            found, steps = found + 1, []
        elif step:
            steps.append(step)
    if steps or found != len(expected):
        raise ElmanError(
            f"{name} has {found:,} whole sequences{' and a cut one' if steps else ''}, expected "
            f"{len(expected):,}; fetch it anew."
        )


def _rows(path: Path, name: str) -> Iterator[tuple[Place, list[str]]]:
    """The rows of a table that are not empty, all as wide as the first, with their first lines."""
    lines = (line for _, line in read_lines(path, name))
    first = next(lines, "")
    tabs = "\t" in first
    # The limit of Python's module is 131,072 characters; a book may be a field.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(
        (line + "\n" for line in _chain(first, lines)),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    width = None
    while True:
        place = Place(name, reader.line_num + 1)
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ElmanError(f"{place}: expected a line of a table ({error}); mend it.") from None
        if row is None:
            return
        if row:
            width = width or len(row)
            if len(row) != width:
                mend = "add what is missing"
                if len(row) > width:
                    mend = (
                        "take out tabs within a text"
                        if tabs
                        else "put quotation marks around a text that holds a comma"
                    )
                raise ElmanError(
                    f"{place}: {_columns_of(len(row))}, expected {width:,} as in the header; "
                    f"{mend}."
                )
            yield place, row


def _chain(first: str, others: Iterator[str]) -> Iterator[str]:
    yield first
    yield from others


def _columns_of(count: int) -> str:
    return f"{count:,} column{'s' if count > 1 else ''}"


def _columns(
    header: Sequence[str], text: str | None, label: str | None, place: Place
) -> tuple[int, int | None]:
    """Which column has the text, and which the label; of two, one is known by the other."""
    for setting, column in (("text_column", text), ("label_column", label)):
        if column is not None and column not in header:
            raise InputError(
                f"`{setting}` is {brief(column)}, expected one of the columns of {place.file}: "
                f"{brief(', '.join(header), 200)}."
            )
    text = text or ("text" if "text" in header else None)
    label = label or ("label" if "label" in header else None)
    if len(header) == 2 and (text is None) != (label is None):
        other = next(column for column in header if column not in (text, label))
        text, label = text or other, label or other
    if text is None or text == label:
        raise InputError(
            f"{place}: the columns are {brief(', '.join(header), 200)}, expected a header with "
            "text and label; put it there, or name the columns in `text_column` and "
            "`label_column`."
        )
    return header.index(text), None if label is None else header.index(label)


def _texts(
    rows: Iterator[tuple[Place, list[str]]], header: Sequence[str], text: int, label: int | None
) -> Iterator[Labelled]:
    for place, row in rows:
        if label is not None and not row[label].strip():
            raise ElmanError(f"{place}: {header[label]} is empty, expected a label.")
        yield Labelled(row[text], None if label is None else row[label].strip(), place)


def _long_format(
    rows: Iterator[tuple[Place, list[str]]], header: Sequence[str], place: Place, label: str
) -> Iterator[Labelled]:
    features = [k for k, column in enumerate(header) if column not in ("id", "time", label)]
    if not features:
        raise ElmanError(
            f"{place}: the columns are {brief(', '.join(header), 200)}, expected features beside "
            "id, time and label."
        )
    steps: dict[str, list[tuple[float, list[float]]]] = {}
    first: dict[str, tuple[Place, str | None]] = {}
    id, time = header.index("id"), header.index("time") if "time" in header else None
    at_label = header.index(label) if label in header else None
    for place, row in rows:
        its = None if at_label is None else row[at_label]
        where, before = first.setdefault(row[id], (place, its))
        if its != before:
            raise ElmanError(
                f"{place}: the {label} of {brief(row[id])} is {brief(its)}, expected "
                f"{brief(before)} as on line {where.line:,}."
            )
        step = [_number(row[k], header[k], place) for k in features]
        known = steps.setdefault(row[id], [])
        at = len(known) if time is None else _number(row[time], "time", place)
        known.append((at, step))
    for key, (where, found) in first.items():
        ordered = sorted(steps[key], key=lambda step: step[0])
        again = next((a for (a, _), (b, _) in pairwise(ordered) if a == b), None)
        if again is not None:
            raise ElmanError(f"{where}: the sequence {brief(key)} has the time {again:g} twice.")
        yield Labelled(_sequence([step for _, step in ordered], where), found, where)


def _sequence(steps: Sequence[Sequence[float]], place: Place) -> np.ndarray:
    import numpy as np

    if not steps:
        raise ElmanError(f"{place}: the sequence is empty, expected steps.")
    return np.array(steps, np.float32)


def _number(text: str, what: str, place: Place) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ElmanError(f"{place}: {what} is {brief(text)}, expected a finite number.")
    return number


def _arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    import numpy as np

    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"X": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except Exception as error:  # zlib, zipfile, tokenize … each have theirs for what is damaged
        raise ElmanError(
            f"{name} could not be read ({brief(str(error), 120)}); expected arrays of numbers "
            "that numpy.save or numpy.savez wrote."
        ) from error


def _numeric(arrays: dict[str, np.ndarray], key: str, name: str) -> np.ndarray:
    array = arrays.get(key)
    if array is None or array.dtype.kind not in "fiub":
        have = "nothing" if array is None else f"an array of {array.dtype}"
        raise ElmanError(f"{name}: received {have} under {key}, expected an array of numbers.")
    return array.astype("float32")
