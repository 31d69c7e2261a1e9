"""Dialogues: what two people say in turns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from elman.data.jsonlines import read_values
from elman.data.pairs import Pair
from elman.data.place import Place
from elman.data.utf8 import read_lines
from elman.errors import ElmanError, brief

END_OF_TURN = "__eou__"
"""What separates turns in DailyDialog (Li et al., 2017)."""


class Dialogue(NamedTuple):
    """A dialogue.

    Attributes:
        turns: what is said, by one speaker and the other in turns.
        place: where it was read.
    """

    turns: tuple[str, ...]
    place: Place


def read_text(path: Path, name: str) -> Iterator[Dialogue]:
    """Read a dialogue a line, ``__eou__`` between turns; or else a turn a line.

    Where ``__eou__`` is nowhere in the file, an empty line ends a dialogue.

    Raises:
        ElmanError: a turn is empty.
    """
    lines = list(read_lines(path, name))
    if any(END_OF_TURN in line for _, line in lines):
        for number, line in lines:
            if line.strip():
                yield dialogue(_turns(line), Place(name, number))
        return
    turns: list[str] = []
    for number, line in [*lines, (len(lines) + 1, "")]:
        if line.strip():
            turns.append(line)
        elif turns:
            yield dialogue(turns, Place(name, number - len(turns)))
            turns = []


def read_jsonl(path: Path, name: str) -> Iterator[Dialogue]:
    """Read a JSON value a line: ``{"turns": ["…", "…"]}``, or the list of turns alone.

    Raises:
        ElmanError: a line is something else, or a turn is empty.
    """
    for place, value in read_values(path, name):
        turns = value.get("turns") if isinstance(value, dict) else value
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            raise ElmanError(f'{place}: received {brief(value)}, expected {{"turns": [texts]}}.')
        yield dialogue(turns, place)


def dialogue(turns: Sequence[str], place: Place) -> Dialogue:
    """Make a dialogue of its turns.

    Raises:
        ElmanError: there is no turn, or an empty one.
    """
    stripped = tuple(turn.strip() for turn in turns)
    if not all(stripped) or not stripped:
        which = f"turn {stripped.index('') + 1} is empty" if stripped else "there is no turn"
        raise ElmanError(f"{place}: {which}, expected a dialogue whose every turn says something.")
    return Dialogue(stripped, place)


def parallel_turns(dialogues: Iterable[Dialogue], others: Iterable[Dialogue]) -> Iterator[Pair]:
    """Pair the turns of dialogues with those of their translations.

    Raises:
        ElmanError: there are more dialogues, or more turns in one, on one side.
    """
    ones, twos = list(dialogues), list(others)
    if len(ones) != len(twos):
        files = [side[0].place.file if side else "the other" for side in (ones, twos)]
        raise ElmanError(
            f"{files[0]} has {len(ones):,} dialogues and {files[1]} {len(twos):,}, expected as "
            "many: each with its translation."
        )
    for one, other in zip(ones, twos, strict=True):
        if len(one.turns) != len(other.turns):
            raise ElmanError(
                f"{one.place} has {len(one.turns)} turns and {other.place} {len(other.turns)}, "
                "expected as many: each with its translation."
            )
        for source, target in zip(one.turns, other.turns, strict=True):
            yield Pair(source, target, one.place)


def _turns(line: str) -> list[str]:
    turns = line.split(END_OF_TURN)
    # DailyDialog closes its last turn, too; XDailyDialog's held-out parts tell the topic and each
    # turn's act and emotion behind it.
    return turns[:-1] if re.fullmatch(r"\s*|\t\d+(\t\d+( \d+)*){2}", turns[-1]) else turns
