"""Any Turing machine as the weights of a recurrent network, exactly (Siegelmann & Sontag, 1995).

The network is x' = σ(A x + B u + c), with σ(v) = min(1, max(0, v)) for each unit and rational
numbers throughout. One step of it is one step of the machine.

**The tape is two numbers.** With the m symbols numbered 0 (the blank), 1, …, m − 1 and b = 2 m, a
stack of symbols s_1 s_2 … is Σ 2 s_i / bⁱ. ``right`` holds the symbol under the head and what is to
the right of it, ``left`` what is to the left, the nearest first; the blank tape is 0. Push and pop
are affine:

    push(s, q) = (q + 2 s) / b        pop(s, q) = b q − 2 s, for the top s

Between the stacks whose top is s − 1 and those whose top is s is a gap (a Cantor set), which
one unit can tell apart: σ(b q − 2 s + 1) is 1 where the top is s or more, and 0 elsewhere.

**Control is a thermometer.** For each state, units say "the machine is here and the symbol under
the head is at least s". Their differences are exactly 1 for the present state and symbol and 0 for
the others. Units of the same kind say what the top of ``left`` is.

**Rules are gates.** Every rule has units of its own. Each computes its number of the next
configuration and subtracts b² + 1 unless the rule applies: σ makes that 0. The sums over all rules
are the configuration. A rule that moves left needs the symbol on top of ``left`` too, and has units
for each. A halting state keeps its configuration, so that the network comes to rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from elman.errors import InputError
from elman.studies.machines import Configuration, Machine

START = "start,"  # the units that take in the first configuration; no state has a comma


@dataclass
class WeightedSum:
    """A weighted sum of units and inputs, by name, plus a constant: exact."""

    units: dict[str, Fraction] = field(default_factory=dict)
    inputs: dict[str, Fraction] = field(default_factory=dict)
    constant: Fraction = Fraction(0)

    def __add__(self, other: WeightedSum | int) -> WeightedSum:
        if isinstance(other, int):
            return WeightedSum(self.units, self.inputs, self.constant + other)
        return WeightedSum(
            _sum(self.units, other.units),
            _sum(self.inputs, other.inputs),
            self.constant + other.constant,
        )

    def __mul__(self, factor: Fraction | int) -> WeightedSum:
        factor = Fraction(factor)
        return WeightedSum(
            {name: w * factor for name, w in self.units.items()},
            {name: w * factor for name, w in self.inputs.items()},
            self.constant * factor,
        )

    def __sub__(self, other: WeightedSum | int) -> WeightedSum:
        return self + other * -1


def saturated(value: Fraction) -> Fraction:
    """σ(v) = min(1, max(0, v))."""
    return min(Fraction(1), max(Fraction(0), value))


class TuringNetwork:
    """A recurrent network x' = σ(A x + B u + c) that is a given Turing machine.

    Its inputs u are ``present``, ``left`` and ``right``: 1 and the two numbers of the tape at the
    first step, 0 at all others. From then on, one step of the network is one of the machine.

    Args:
        machine: what it computes.

    Attributes:
        rows: for each unit by name, what is added up for its next value: a row of A, of B and of c.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        self.base = 2 * len(machine.symbols)
        self.rows: dict[str, WeightedSum] = {}
        self._groups = [START, *self._branches(), *machine.halting]
        self._compile()

    # -- running ------------------------------------------------------------------------------

    def step(
        self, x: Mapping[str, Fraction], u: Mapping[str, Fraction] | None = None
    ) -> dict[str, Fraction]:
        """x' = σ(A x + B u + c), of the units that are not 0.

        Args:
            x: the units that are not 0, by name.
            u: the inputs that are not 0, by name.
        """
        new = {}
        for name, row in self.rows.items():
            value = row.constant
            value += sum((w * x[unit] for unit, w in row.units.items() if unit in x), Fraction(0))
            if u:
                value += sum((w * u.get(k, 0) for k, w in row.inputs.items()), Fraction(0))
            if value > 0:
                new[name] = saturated(value)
        return new

    def run(self, word: str, steps: int = 100_000) -> Iterator[dict[str, Fraction]]:
        """The units after each step, from the one that takes in the word, until they rest.

        Args:
            word: the tape, with the head on its first symbol.
            steps: of the machine, at most.

        Raises:
            InputError: the word has a symbol that the machine has not.
        """
        x = self.step({}, self.encode(self.machine.start(word)))
        yield x
        for _ in range(steps):
            if self.decode(x).state in self.machine.halting:
                return
            x = self.step(x)
            yield x

    # -- configurations -----------------------------------------------------------------------

    def encode(self, configuration: Configuration) -> dict[str, Fraction]:
        """The inputs for a configuration in the machine's first state."""
        left, head, right = configuration.left, configuration.head, configuration.right
        return {
            "present": Fraction(1),
            "left": self._number(left[::-1]),
            "right": self._number(head + right),
        }

    def decode(self, x: Mapping[str, Fraction]) -> Configuration:
        """The configuration that the units hold.

        Raises:
            InputError: they hold none.
        """
        states = [s for s in self.machine.states if _value(self._here(s, 0), x) == 1]
        if len(states) != 1:
            raise InputError(f"these units hold {len(states)} states of the machine, expected 1.")
        left, right = (self._symbols(_value(self._stack(side), x)) for side in ("left", "right"))
        blank = self.machine.symbols[0]
        return Configuration(states[0], left[::-1], right[:1] or blank, right[1:])

    def _number(self, symbols: str) -> Fraction:
        number = Fraction(0)
        for symbol in reversed(symbols):
            number = (number + 2 * self.machine.symbols.index(symbol)) / self.base
        return number

    def _symbols(self, number: Fraction) -> str:
        symbols = ""
        while number:
            digit = int(number * self.base)
            symbols += self.machine.symbols[digit // 2]
            number = number * self.base - digit
        return symbols

    # -- weights ------------------------------------------------------------------------------

    def matrices(self) -> tuple[list[list[Fraction]], list[list[Fraction]], list[Fraction]]:
        """A (n, n), B (n, 3) and c (n), the units in the order of ``rows``."""
        inputs = ("present", "left", "right")
        rows = self.rows.values()
        return (
            [[row.units.get(unit, Fraction(0)) for unit in self.rows] for row in rows],
            [[row.inputs.get(name, Fraction(0)) for name in inputs] for row in rows],
            [row.constant for row in rows],
        )

    def equations(self) -> Iterator[str]:
        """The network as text: an equation for each unit."""
        for name, row in self.rows.items():
            terms = [*row.units.items(), *((f"u[{k}]", w) for k, w in row.inputs.items())]
            if row.constant:
                terms.append(("", row.constant))
            summed = " ".join(_term(weight, unit) for unit, weight in terms)
            yield f"{name}' = σ({summed.removeprefix('+ ')})"

    def _compile(self) -> None:
        here = WeightedSum(inputs={"present": Fraction(1)})
        tape = {side: WeightedSum(inputs={side: Fraction(1)}) for side in ("left", "right")}
        for s in self._digits:
            self._unit(START, f"head≥{s}", self._at_least(s, tape["right"], here))
            self._unit(START, f"left≥{s}", self._at_least(s, tape["left"], here))
        for side in tape:
            self._unit(START, side, tape[side])
        for name, (state, read, top) in self._branches().items():
            self._compile_rule(name, state, read, top)
        for state in self.machine.halting:
            gate = self._here(state, 0)
            for s in self._digits:
                self._gated(state, f"head≥{s}", self._here(state, s), gate)
                self._gated(state, f"left≥{s}", self._beside(s), gate)
            for side in tape:
                self._gated(state, side, self._stack(side), gate)

    def _compile_rule(self, name: str, state: str, read: int, top: int | None) -> None:
        rule = self.machine.rules[state, self.machine.symbols[read]]
        written = self.machine.symbols.index(rule.write)
        gate = self._here(state, read) - self._here(state, read + 1)
        left, right = self._stack("left"), self._pop(read, self._stack("right"))
        if top is None:
            left = self._push(written, left)
            beside = [WeightedSum(constant=Fraction(s <= written)) for s in self._digits]
            head = [self._at_least(s, right) for s in self._digits]
        else:
            gate = gate + self._beside(top) - self._beside(top + 1) - 1
            left = self._pop(top, left)
            right = self._push(top, self._push(written, right))
            beside = [self._at_least(s, left) for s in self._digits]
            head = [WeightedSum(constant=Fraction(s <= top)) for s in self._digits]
        for s in self._digits:
            self._gated(name, f"head≥{s}", head[s], gate)
            self._gated(name, f"left≥{s}", beside[s], gate)
        self._gated(name, "left", left, gate)
        self._gated(name, "right", right, gate)

    def _unit(self, group: str, kind: str, row: WeightedSum) -> None:
        row.units = {name: w for name, w in row.units.items() if w}
        self.rows[_name(group, kind)] = row

    def _gated(self, group: str, kind: str, value: WeightedSum, gate: WeightedSum) -> None:
        """A unit that is ``value`` where the gate is 1, and 0 where it is 0 or less."""
        # No value that a rule computes, right or not, is above b (b q − 2 s) + 1 ≤ b² + 1.
        self._unit(group, kind, value + (gate - 1) * (self.base**2 + 1))

    @property
    def _digits(self) -> range:
        return range(len(self.machine.symbols))

    def _branches(self) -> dict[str, tuple[str, int, int | None]]:
        """By name: a rule's state and symbol, and the top of ``left`` where it moves there."""
        symbols = self.machine.symbols
        branches: dict[str, tuple[str, int, int | None]] = {}
        for (state, symbol), rule in self.machine.rules.items():
            read, name = symbols.index(symbol), f"{state},{symbol}"
            if rule.move == "R":
                branches[name] = (state, read, None)
            else:
                branches |= {f"{name},{symbols[s]}": (state, read, s) for s in self._digits}
        return branches

    def _next_state(self, group: str) -> str:
        if group == START:
            return self.machine.first
        if group in self.machine.halting:
            return group
        state, read, _ = self._branches()[group]
        return self.machine.rules[state, self.machine.symbols[read]].next

    def _here(self, state: str, s: int) -> WeightedSum:
        """1 where the machine is in ``state`` and the symbol under the head is at least s."""
        groups = [g for g in self._groups if self._next_state(g) == state]
        return self._total(groups, f"head≥{s}") if s in self._digits else WeightedSum()

    def _beside(self, s: int) -> WeightedSum:
        """1 where the symbol left of the head is at least s."""
        return self._total(self._groups, f"left≥{s}") if s in self._digits else WeightedSum()

    def _stack(self, side: str) -> WeightedSum:
        return self._total(self._groups, side)

    def _total(self, groups: list[str], kind: str) -> WeightedSum:
        return WeightedSum({_name(group, kind): Fraction(1) for group in groups})

    def _push(self, s: int, stack: WeightedSum) -> WeightedSum:
        return (stack + 2 * s) * Fraction(1, self.base)

    def _pop(self, s: int, stack: WeightedSum) -> WeightedSum:
        return stack * self.base - 2 * s

    def _at_least(self, s: int, stack: WeightedSum, one: WeightedSum | None = None) -> WeightedSum:
        """Above 1 where the top is s or more, below 0 elsewhere."""
        one = WeightedSum(constant=Fraction(1)) if one is None else one
        return stack * self.base - one * (2 * s - 1)


def _name(group: str, kind: str) -> str:
    return f"[{group}].{kind}"


def _value(row: WeightedSum, x: Mapping[str, Fraction]) -> Fraction:
    return sum((w * x[unit] for unit, w in row.units.items() if unit in x), row.constant)


def _sum(a: Mapping[str, Fraction], b: Mapping[str, Fraction]) -> dict[str, Fraction]:
    return {name: a.get(name, Fraction(0)) + b.get(name, Fraction(0)) for name in {**a, **b}}


def _term(weight: Fraction, unit: str) -> str:
    size = abs(weight)
    factors = [str(size)] if size != 1 or not unit else []
    return ("+ " if weight > 0 else "− ") + "·".join([*factors, unit][: len(factors) + bool(unit)])
