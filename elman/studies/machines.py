"""Turing machines: what they are, how they are written, how they run, and three of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from elman.errors import ElmanError, InputError


@dataclass(frozen=True)
class Rule:
    """What a machine does in a state on a symbol: write, move ("L" or "R"), change state."""

    write: str
    move: str
    next: str


@dataclass(frozen=True)
class Configuration:
    """A machine at rest between two steps; blanks beyond the ends of the tape are left out.

    Attributes:
        state: the machine's.
        left: the tape left of the head, as written.
        head: the symbol under the head.
        right: the tape right of it, as written.
    """

    state: str
    left: str
    head: str
    right: str

    @property
    def tape(self) -> str:
        """All that is written, the symbol under the head included."""
        return self.left + self.head + self.right


@dataclass(frozen=True)
class Machine:
    """A deterministic Turing machine with one tape, endless on both sides (Turing, 1936).

    Attributes:
        symbols: one character each, the blank first.
        first: the state that it starts in.
        rules: by state and symbol. A state without any rule is a halting state.
    """

    symbols: str
    first: str
    rules: Mapping[tuple[str, str], Rule]

    @property
    def states(self) -> tuple[str, ...]:
        """All states, the first one first."""
        named = (s for (state, _), rule in self.rules.items() for s in (state, rule.next))
        return tuple(dict.fromkeys([self.first, *named]))

    @property
    def halting(self) -> tuple[str, ...]:
        """The states in which it stops."""
        return tuple(s for s in self.states if all(state != s for state, _ in self.rules))

    @classmethod
    def of(cls, text: str) -> Machine:
        """A machine from its table: a line ``state symbol → symbol move state`` for each rule.

        The first line's state is the first; ``_`` is the blank; moves are L and R; what follows a
        ``#`` is a comment.

        Raises:
            InputError: a line is no such rule, a rule is given twice, or one is missing.
        """
        rules: dict[tuple[str, str], Rule] = {}
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].replace("→", " ").replace("->", " ").split()
            if not words:
                continue
            if (
                len(words) != 5
                or words[3] not in ("L", "R")
                or len(words[1]) != 1
                or len(words[2]) != 1
            ):
                raise InputError(
                    f"line {number} of a machine must be 'state symbol → symbol L|R state', "
                    f"received {line.strip()!r}."
                )
            state, read, write, move, after = words
            if "," in state + after:
                raise InputError(
                    f"a state may have no comma in its name, received {line.strip()!r}."
                )
            if (state, read) in rules:
                raise InputError(
                    f"line {number} is the second rule for {state} on {read}: drop one."
                )
            rules[state, read] = Rule(write, move, after)
        if not rules:
            raise InputError("a machine needs at least one rule, received none.")
        seen = {s for (_, read), rule in rules.items() for s in (read, rule.write)}
        symbols = "".join(["_", *sorted(seen - {"_"})])
        working = dict.fromkeys(state for state, _ in rules)
        missing = [(q, s) for q in working for s in symbols if (q, s) not in rules]
        if missing:
            state, read = missing[0]
            raise InputError(f"no rule says what {state} does on {read}: add one.")
        return cls(symbols, next(iter(working)), rules)

    def start(self, word: str) -> Configuration:
        """The first configuration: the head on the first symbol of ``word``.

        Raises:
            InputError: the word has a symbol that the machine has not.
        """
        if unknown := set(word) - set(self.symbols):
            raise InputError(
                f"the machine's symbols are {self.symbols}, received a word with "
                f"{''.join(sorted(unknown))}."
            )
        blank = self.symbols[0]
        return Configuration(self.first, "", word[:1] or blank, word[1:].rstrip(blank))

    def step(self, now: Configuration) -> Configuration:
        """The next configuration; the same in a halting state."""
        if now.state in self.halting:
            return now
        rule, blank = self.rules[now.state, now.head], self.symbols[0]
        if rule.move == "R":
            left = (now.left + rule.write).lstrip(blank)
            return Configuration(rule.next, left, now.right[:1] or blank, now.right[1:])
        right = (rule.write + now.right).rstrip(blank)
        return Configuration(rule.next, now.left[:-1], now.left[-1:] or blank, right)

    def run(self, word: str, steps: int = 100_000) -> Iterator[Configuration]:
        """The configurations from the first to that of the halt, or after so many steps."""
        now = self.start(word)
        yield now
        for _ in range(steps):
            if now.state in self.halting:
                return
            now = self.step(now)
            yield now


def find(name: str) -> Machine:
    """The machine of that name, or of the file of that name.

    Raises:
        InputError: there is none, or the file holds none.
        ElmanError: the file cannot be read.
    """
    if name in MACHINES:
        return Machine.of(MACHINES[name])
    if not Path(name).is_file():
        raise InputError(
            f"machine must be one of {', '.join(MACHINES)} or a file with a table, "
            f"received {name!r}."
        )
    try:
        return Machine.of(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ElmanError(f"{name} could not be read ({error}).") from error


MACHINES = {
    # A binary number, most significant digit first, plus one.
    "increment": """
        seek  0 → 0 R seek
        seek  1 → 1 R seek
        seek  _ → _ L carry
        carry 1 → 0 L carry
        carry 0 → 1 L done
        carry _ → 1 L done
    """,
    # Compares the first symbol with the last, takes both away, and so on inwards.
    "palindrome": """
        first 0 → _ R right0
        first 1 → _ R right1
        first _ → _ R yes
        right0 0 → 0 R right0
        right0 1 → 1 R right0
        right0 _ → _ L last0
        right1 0 → 0 R right1
        right1 1 → 1 R right1
        right1 _ → _ L last1
        last0 0 → _ L back
        last0 1 → 1 L no
        last0 _ → _ L yes
        last1 1 → _ L back
        last1 0 → 0 L no
        last1 _ → _ L yes
        back 0 → 0 L back
        back 1 → 1 L back
        back _ → _ R first
    """,
    # Of all machines with four states and two symbols that halt, none runs longer or writes more
    # on an empty tape: 107 steps, 13 ones (Brady, 1983).
    "busy-beaver": """
        A _ → 1 R B
        A 1 → 1 L B
        B _ → 1 L A
        B 1 → _ L C
        C _ → 1 R halt
        C 1 → 1 L D
        D _ → 1 R D
        D 1 → _ R A
    """,
}
"""The tables of the machines that come with elman, by name."""

WORDS = {"increment": "1011", "palindrome": "0110110", "busy-beaver": ""}
"""What each of them is started on, unless a word is given."""
