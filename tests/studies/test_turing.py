"""The network of a Turing machine is that machine."""

from __future__ import annotations

from fractions import Fraction
from itertools import product, zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.errors import InputError
from elman.studies.machines import MACHINES, WORDS, Configuration, Machine, Rule, find
from elman.studies.turing_network import TuringNetwork, WeightedSum

NETWORKS = {name: TuringNetwork(find(name)) for name in MACHINES}


def simulated(machine: Machine, word: str, steps: int) -> list[tuple[str, int, dict[int, str]]]:
    """State, place of the head, and what is not blank: a simulator that shares no code."""
    tape = {k: s for k, s in enumerate(word) if s != "_"}
    state, head, found = machine.first, 0, []
    while True:
        found.append((state, head, dict(tape)))
        rule = machine.rules.get((state, tape.get(head, "_")))
        if rule is None or len(found) > steps:
            return found
        tape[head] = rule.write
        if rule.write == "_":
            del tape[head]
        head += 1 if rule.move == "R" else -1
        state = rule.next


def as_tape(now: Configuration, head: int) -> dict[int, str]:
    start = head - len(now.left)
    return {start + k: s for k, s in enumerate(now.tape) if s != "_"}


def check(network: TuringNetwork, word: str, steps: int = 500) -> list[Configuration]:
    """Step for step, the network, the machine and the simulator above are in the same place."""
    inside = [network.decode(x) for x in network.run(word, steps)]
    outside = list(network.machine.run(word, steps))
    for now, its, (state, head, tape) in zip_longest(
        inside, outside, simulated(network.machine, word, steps)
    ):
        assert now == its
        assert now.state == state and as_tape(now, head) == tape
    return inside


@pytest.mark.parametrize("n", range(20))
def test_increment(n):
    last = check(NETWORKS["increment"], f"{n:b}")[-1]
    assert last.state == "done" and int(last.tape.strip("_"), 2) == n + 1


@pytest.mark.parametrize("word", ["".join(w) for k in range(5) for w in product("01", repeat=k)])
def test_palindrome(word):
    last = check(NETWORKS["palindrome"], word)[-1]
    assert last.state == ("yes" if word == word[::-1] else "no")


def test_busy_beaver_runs_107_steps_and_writes_13_ones():
    inside = check(NETWORKS["busy-beaver"], WORDS["busy-beaver"])
    assert len(inside) - 1 == 107
    assert inside[-1].state == "halt" and inside[-1].tape.count("1") == 13


@st.composite
def machines(draw):
    """Machines with up to three states and three symbols, of any rules; most never halt."""
    states = "ABC"[: draw(st.integers(1, 3))]
    symbols = "_xy"[: draw(st.integers(1, 3))]
    rule = st.builds(
        Rule, st.sampled_from(symbols), st.sampled_from("LR"), st.sampled_from([*states, "H"])
    )
    return Machine(symbols, "A", {(q, s): draw(rule) for q in states for s in symbols})


@settings(max_examples=25, deadline=None)
@given(machines(), st.text("_xy", max_size=6))
def test_any_machine(machine, word):
    word = "".join(s for s in word if s in machine.symbols)
    check(TuringNetwork(machine), word, 30)


def test_the_network_is_a_saturated_affine_map_with_rational_numbers():
    network = NETWORKS["busy-beaver"]
    a, b, c = network.matrices()
    u = network.encode(network.machine.start(""))
    x = [Fraction(0)] * len(c)
    for k, expected in enumerate(network.run("", 20)):
        given_now = [u.get(n, Fraction(0)) if k == 0 else 0 for n in ("present", "left", "right")]
        sums = [
            sum(w * v for w, v in zip(row, x, strict=True))
            + sum(w * v for w, v in zip(of_input, given_now, strict=True))
            + constant
            for row, of_input, constant in zip(a, b, c, strict=True)
        ]
        x = [min(Fraction(1), max(Fraction(0), s)) for s in sums]
        assert all(isinstance(v, Fraction) for v in x)
        assert x == [expected.get(name, 0) for name in network.rows]


def test_it_comes_to_rest():
    network = NETWORKS["increment"]
    *_, last = network.run("11")
    rest = network.step(last)  # from the units of the last rule to those of the halting state
    assert network.decode(rest) == network.decode(last)
    assert network.step(rest) == rest


def test_equations_are_printed_for_every_unit():
    network = NETWORKS["increment"]
    lines = list(network.equations())
    assert len(lines) == len(network.rows)
    assert lines[0] == "[start,].head≥0' = σ(6·u[right] + u[present])"


def test_weighted_sums():
    x, y = WeightedSum({"x": Fraction(2)}), WeightedSum({"y": Fraction(1)}, {}, Fraction(3))
    both = (x - y) * Fraction(1, 2) + 1
    assert both.units == {"x": 1, "y": Fraction(-1, 2)} and both.constant == Fraction(-1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A _ 1 R", "line 1 of a machine must be"),
        ("A _ → 1 S B", "line 1 of a machine must be"),
        ("A _ → 1 R A\nA _ → 1 L A", "line 2 is the second rule for A on _"),
        ("A _ → 1 R A", "no rule says what A does on 1"),
        ("A,b _ → _ R A,b", "state may have no comma"),
        ("# nothing", "needs at least one rule"),
    ],
)
def test_a_wrong_table(text, message):
    with pytest.raises(InputError, match=message):
        Machine.of(text)


def test_what_is_not_there():
    with pytest.raises(InputError, match="machine must be one of increment"):
        find("nosuch")
    with pytest.raises(InputError, match="the machine's symbols are _01"):
        NETWORKS["increment"].machine.start("12")
    with pytest.raises(InputError, match="hold 0 states"):
        NETWORKS["increment"].decode({})
