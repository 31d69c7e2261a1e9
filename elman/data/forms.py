"""Forms of verse: how long each clause of each line is, and which mark ends it."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from elman.errors import ElmanError, InputError, brief

MARKS = frozenset("，。、！？；：,.!?;:…—")
"""What ends a clause; all else, such as quotation marks, is counted."""

LINE_END = "\n"

_MARK = f"[{re.escape(''.join(sorted(MARKS)))}]"
_CLAUSE = re.compile(rf"(\d+)({_MARK}?)")
_LINE = re.compile(rf"(\d{{1,4}}{_MARK})*(\d{{1,4}}{_MARK}?)")


class Clause(NamedTuple):
    """So many tokens, and the mark behind them; none where the line ends without one."""

    length: int
    mark: str


Line = tuple[Clause, ...]


class Place(NamedTuple):
    """What a form asks for at one place of a poem.

    Attributes:
        left: tokens to come in this clause; 0 where its mark or the line's end stands.
        mark: the mark that this clause ends with, or else the line's end.
        clauses: clauses to come in this line, this one among them; 0 at the line's end.
        lines: lines to come, this one among them; 0 at the end of the poem, an empty line.
    """

    left: int
    mark: str
    clauses: int
    lines: int


@dataclass(frozen=True)
class Form:
    """The form of a poem, line by line.

    Written as ``7。/7，7。``: the lengths of the clauses with their marks, a stroke between lines.
    """

    lines: tuple[Line, ...]

    @classmethod
    def of(cls, lines: Iterable[Sequence[str]]) -> Self:
        """The form of lines of tokens; of characters, where the lines are texts."""
        return cls(tuple(_clauses(line) for line in lines))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The form that is written so.

        Raises:
            InputError: it is no form.
        """
        lines = text.strip().split("/")
        for line in lines:
            if not _LINE.fullmatch(line):
                raise InputError(
                    f"`form` has a line {brief(line)}, expected lengths such as 7,7,7,3,3,7, or "
                    "lengths with marks and strokes between lines, such as 7。/7，7。."
                )
        found = ([Clause(int(n), mark) for n, mark in _CLAUSE.findall(line)] for line in lines)
        return cls(tuple(map(tuple, found)))

    @classmethod
    def of_lengths(cls, text: str, end: str) -> Self | None:
        """The form of a clause a line, such as ``7,7,7,3,3,7``; None where it is more than that.

        Args:
            text: the lengths.
            end: the mark that every line ends with, or none.
        """
        if not re.fullmatch(r"[\d\s]+(,[\d\s]+)*", text):
            return None
        return cls.parse("/".join(f"{n}{end}" for n in re.findall(r"\d+", text)))

    def __str__(self) -> str:
        return "/".join("".join(f"{n}{mark}" for n, mark in line) for line in self.lines)

    @property
    def lengths(self) -> tuple[tuple[int, ...], ...]:
        """The clauses' lengths, line by line, whatever their marks."""
        return tuple(tuple(n for n, _ in line) for line in self.lines)

    def places(self) -> Iterator[Place]:
        """What it asks for, token by token, the ends of the lines and the empty line among them."""
        for above, line in enumerate(self.lines):
            lines = len(self.lines) - above
            for before, (length, mark) in enumerate(line):
                clauses = len(line) - before
                for left in range(length, 0, -1):
                    yield Place(left, mark or LINE_END, clauses, lines)
                if mark:
                    yield Place(0, mark, clauses, lines)
            yield Place(0, LINE_END, 0, lines)
        yield Place(0, LINE_END, 0, 0)

    def begins(self, tokens: Sequence[str]) -> bool:
        """Whether a poem of this form can begin with these tokens, and go on."""
        places = list(self.places())
        return len(tokens) < len(places) and all(
            (token not in MARKS and token != LINE_END) if place.left else token == place.mark
            for place, token in zip(places, tokens, strict=False)
        )


def _clauses(line: Sequence[str]) -> Line:
    found, length = [], 0
    for token in line:
        if token in MARKS:
            found.append(Clause(length, token))
            length = 0
        else:
            length += 1
    return (*found, Clause(length, "")) if length or not found else tuple(found)


class Forms:
    """The forms that the poems of each tune have, with how often.

    Args:
        counts: by tune, how often there is each form.
    """

    def __init__(self, counts: Mapping[str, Mapping[Form, int]]):
        self.counts = {tune: Counter(forms) for tune, forms in counts.items()}

    @classmethod
    def of(cls, poems: Iterable[tuple[str, Form]]) -> Self:
        """The forms of poems, each with its tune."""
        counts: dict[str, Counter[Form]] = {}
        for tune, form in poems:
            counts.setdefault(tune, Counter())[form] += 1
        return cls(counts)

    def __contains__(self, tune: object) -> bool:
        return tune in self.counts

    def all(self) -> Iterator[tuple[str, Form, int]]:
        """Every tune with each of its forms, and how often they are there."""
        for tune, forms in self.counts.items():
            yield from ((tune, form, count) for form, count in forms.items())

    def near(self, tune: str) -> list[str]:
        """Tunes whose names hold this one, or come close to it: a few, the commonest first."""
        known = sorted(self.counts, key=lambda name: -self.counts[name].total())
        holding = [name for name in known if tune and tune in name]
        close = difflib.get_close_matches(tune, known, n=3, cutoff=0.5)
        return [*dict.fromkeys(holding + close)][:3]

    def usual_end(self) -> str:
        """The mark that most lines end with, or none."""
        ends: Counter[str] = Counter()
        for _, form, count in self.all():
            for line in form.lines:
                ends[line[-1].mark] += count
        return ends.most_common(1)[0][0]

    def to_json(self) -> dict[str, Any]:
        """By tune, how often there is each form, as plain JSON."""
        return {t: {str(form): n for form, n in forms.items()} for t, forms in self.counts.items()}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Restore what ``to_json`` returned.

        Raises:
            ElmanError: the content is damaged.
        """
        try:
            return cls(
                {
                    tune: {Form.parse(form): int(count) for form, count in forms.items()}
                    for tune, forms in content.items()
                }
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise ElmanError(
                "the forms of the run are damaged: restore the file from where it was written."
            ) from error
