"""What a class may not declare: each refused with the line that says so, when a cell is made."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn, tanh

import elman
from elman import Affine, Cell, Constant, Diagonal, Linear, Recurrent


def plain(self, z, h):
    return tanh(z)


def make(**members) -> type[Cell]:
    """A class of these members, with a map and a step where they have none of their own."""
    return type("Own", (Cell,), {"net": Affine(), "step": plain} | members)


def refused(cell: type[Cell], *words: str) -> str:
    with pytest.raises(elman.InputError) as error:
        cell(3, 4)
    text = str(error.value)
    for word in ("Own", *words):
        assert word in text, text
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize(
    "name", ["forward", "training", "hidden_size", "state", "double", "noise", "bind", "_buffers"]
)
@pytest.mark.parametrize("declared", [Affine(), Linear(), Diagonal(), Constant(lambda cell: 1)])
def test_names_that_every_cell_has(name, declared):
    refused(make(**{name: declared}), f"{name!r}", __file__)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"weight_hh": Linear()}, ["'net'", "weight_hh", "rename"]),
        ({"bias_ih": Diagonal()}, ["'net'", "bias_ih", "rename"]),
        ({"a": Linear(), "weight_a": Diagonal()}, ["'a'", "weight_a", "rename"]),
        ({"a": Linear(weight="half")}, ["'a'", "half", "rename"]),
        ({"a": Linear(weight="a b")}, ["'a'", "'a b'", "without dots and blanks"]),
        ({"a": Linear(weight="weight_ih")}, ["weight_ih", "twice"]),
        ({"constant_k": 3, "k": Constant(lambda cell: 1)}, ["'k'", "constant_k", "rename"]),
    ],
)
def test_weights_that_would_take_each_others_names(members, words):
    refused(make(**members), *words, __file__)


def test_an_attribute_that_a_weight_would_hide():
    class Own(Cell):
        net = Affine()
        step = plain

        def __init__(self, *sizes, **options):
            self.weight_ih = 3
            super().__init__(*sizes, **options)

    refused(Own, "weight_ih", "something else of that name")


def test_no_weight_takes_the_place_of_a_networks_own():
    gate = make(highway=Diagonal())(4, 4)
    Recurrent(gate)
    with pytest.raises(elman.InputError, match=r"two weights called weight_highway_l0.*Own's"):
        Recurrent(gate, skip="highway")
    start = make(first=Diagonal(), a=Linear(weight="initial_h"))(4, 4)
    with pytest.raises(elman.InputError, match="two weights called initial_h_l0"):
        Recurrent(start, learn_initial_state=True)


def test_what_is_no_bias_of_a_map_is_not_added():
    """A cell without a second bias may have an attribute that is called as it would be."""

    class Own(Cell):
        net = Affine()
        a = Linear(of="x")

        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.bias_hh = self.bias_a = torch.ones(4)

        def step(self, z, h):
            return z + 0 * self.a(torch.ones(3))

    cell, x = Own(3, 4), torch.randn(2, 3)
    expected = x @ cell.weight_ih.T + cell.bias_ih
    torch.testing.assert_close(cell(x, torch.zeros(2, 4))[0], expected)
    torch.testing.assert_close(cell.a(x), x @ cell.weight_a.T)


async def waits(self, z, h):
    return z


def yields(self, z, h):
    yield z


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (3, ["received 3"]),
        (None, ["received NoneType"]),
        (nn.Linear(2, 2), ["received Linear"]),
        (staticmethod(plain), ["received a staticmethod"]),
        (classmethod(plain), ["received a classmethod"]),
        (property(plain), ["received a property"]),
        (waits, ["received an async def", "test_checks.py"]),
        (yields, ["received a generator", "test_checks.py"]),
    ],
)
def test_a_step_is_a_method(step, words):
    refused(make(step=step), "Own.step must be a method", "def step(self, x, h)", *words)


@pytest.mark.parametrize(
    ("step", "count"),
    [
        (lambda self, z: z, 0),
        (lambda self, z, h, c: z, 2),
        (lambda self, z, h, *, c: z, 2),
        (lambda self, z, h, c, *more: z, 2),
    ],
)
def test_a_step_takes_the_states(step, count):
    line = step.__code__.co_firstlineno
    refused(make(step=step), f"takes {count} states ({__file__}:{line})", "expected 1")


@pytest.mark.parametrize(
    "step",
    [
        lambda self, z, h, gain=0.5: gain * z,
        lambda self, z, *states: z,
        lambda self, z, h, **more: z,
        lambda self, z, h, *, gain=0.5: gain * z,
    ],
)
def test_a_step_may_have_options_of_its_own(step):
    make(step=step)(3, 4)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (3, ["tuple of names", "received 3"]),
        ({"h", "c"}, ["tuple of names"]),
        (("h", 4), ["names", "received 4"]),
        (("h", "a.b"), ["names", "'a.b'"]),
        (("h", "x"), ["x (the input)", "'x'"]),
        (("h", "hidden"), ["hidden", "'hidden'"]),
    ],
)
def test_states_are_names(state, words):
    line = inspect.currentframe().f_lineno + 1
    cell = type("Own", (Cell,), {"net": Affine(), "step": plain, "state": state})
    refused(cell, "Own.state must", f"({__file__}:{line})", *words)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (8, ["must be a tuple", "received 8"]),
        (("a",), ["positive integers", "received 'a' for h"]),
        ((2.0,), ["positive integers", "received 2.0 for h"]),
        ((0,), ["positive integers", "received 0 for h"]),
        ((True,), ["positive integers", "received True for h"]),
        ((4, 4), ["has 2 values", "expected 1"]),
    ],
)
def test_sizes_of_states(sizes, words):
    refused(make(state_sizes=property(lambda self: sizes)), "state_sizes", __file__, *words)
    refused(make(state_sizes=sizes), "state_sizes", *words)


def test_sizes_of_states_are_no_method_and_may_be_numbers_of_the_class():
    refused(make(state_sizes=lambda self: (4,)), "must be a property", "put @property before it")
    refused(make(state_sizes=property(lambda self: 1 / 0)), "could not be read", "division by zero")
    assert make(state_sizes=(4,))(3, 4).state_sizes == (4,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"of": 7}, ["of must be 'x', 'hidden' or the name of a state, received 7"]),
        ({"to": None}, ["to must be 'x'", "received None"]),
        ({"repeat": 3}, ["repeat must be an attribute's name, received 3"]),
        ({"weight": 3}, ["weight must be a parameter's name, received 3"]),
        ({"blocks": ["i", "f"]}, ["blocks must be names with spaces", "received ['i', 'f']"]),
        ({"blocks": 4}, ["blocks must be names with spaces", "received 4"]),
        ({"blocks": "i 2"}, ["follow a dot", "received '2'"]),
        ({"blocks": "a-b"}, ["follow a dot", "received 'a-b'"]),
        ({"blocks": "is if"}, ["follow a dot", "received 'is'"]),
    ],
)
def test_what_a_map_is_declared_with(arguments, words):
    with pytest.raises(elman.InputError) as error:
        Linear(**arguments)
    for word in words:
        assert word in str(error.value)
    with pytest.raises(elman.InputError, match="mask must be the name of a Constant, received 3"):
        Affine(mask=3)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a": Linear(of="q")}, ["Own.a", "'q'", "x, hidden, h"]),
        ({"a": Linear(to="q")}, ["Own.a", "'q'", "x, hidden, h"]),
        ({"a": Linear(repeat="more")}, ["Own.a", "self.more", "received None"]),
        ({"a": Linear(repeat="more"), "more": 1.5}, ["Own.a", "self.more", "received 1.5"]),
        ({"net": Affine(mask="m")}, ["Own.net", "'m'", "no Constant"]),
        (
            {"net": Affine(mask="m"), "m": Constant(lambda cell: torch.ones(2, 7))},
            ["Own.net", "'m'", "(2, 7)", "expected (4, 4)"],
        ),
        ({"k": Constant(lambda cell: 3)}, ["Own.k", "must be a tensor", "torch.tensor(3)", "int"]),
        ({"k": Constant(lambda cell: [3])}, ["Own.k", "must be a tensor", "received list"]),
        ({"k": Constant(lambda cell: 1 / 0)}, ["Own.k", "could not be made", "ZeroDivision"]),
        ({"k": Constant(lambda cell: torch.ones(2) * 1j)}, ["Own.k", "real", "complex64"]),
    ],
)
def test_what_maps_and_constants_are_made_of(members, words):
    refused(make(**members), __file__, *words)


def test_numbers_of_a_cell_are_real():
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(elman.InputError, match=f"dtype must be of real numbers.*{dtype}"):
            make()(3, 4, dtype=dtype)


def test_an_init_that_does_not_call_that_of_its_base():
    class Own(Cell):
        net = Affine()
        step = plain

        def __init__(self, input_size, hidden_size):
            self.leak = 0.1

    line = Own.__init__.__code__.co_firstlineno
    with pytest.raises(elman.InputError, match=r"Own.__init__ does not call super") as error:
        Recurrent(Own(3, 4))
    assert f"{__file__}:{line}" in str(error.value)


def test_an_init_that_fails_for_a_deeper_layer():
    class Own(Cell):
        net = Affine()
        step = plain

        def __init__(self, size, hidden_size):
            if size == hidden_size:
                raise ValueError("not square")
            super().__init__(size, hidden_size)

    Recurrent(Own(3, 4))
    with pytest.raises(elman.InputError, match="could not be made with 4 inputs and 4") as error:
        Recurrent(Own(3, 4), 2)
    assert f"{__file__}:{Own.__init__.__code__.co_firstlineno + 2}" in str(error.value)
