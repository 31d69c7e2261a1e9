"""The contract of a cell: what it declares, what elman makes of it, and how a mistake is told."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import elman
from elman import Affine, Cell, Diagonal, Linear, cells

# -- what is declared -------------------------------------------------------------------------


def shapes(cell: Cell) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in cell.named_parameters()}


def test_names_and_shapes_of_declared_weights():
    class Everything(Cell):
        state = ("h", "m")
        gates = Affine("a b")
        candidate = Affine()
        drive = Linear("u v w", of="x", bias=True)
        narrow = Linear(of="m", to="x", weight="named")
        peephole = Diagonal("p q")
        gain = Diagonal()

        @property
        def state_sizes(self):
            return 4, 2

        def step(self, z, h, m):
            return h, m

    expected = {
        "weight_ih": (8, 3), "weight_hh": (8, 4), "bias_ih": (8,), "bias_hh": (8,),
        "weight_ih_candidate": (4, 3), "weight_hh_candidate": (4, 4),
        "bias_ih_candidate": (4,), "bias_hh_candidate": (4,),
        "weight_drive": (12, 3), "bias_drive": (12,),
        "named": (3, 2),
        "weight_peephole": (8,), "weight_gain": (4,),
    }  # fmt: skip
    assert shapes(Everything(3, 4, biases=2)) == expected
    for biases, missing in ((1, "bias_hh"), (0, "bias_")):
        kept = {k: v for k, v in expected.items() if not k.startswith(missing)}
        assert shapes(Everything(3, 4, biases=biases)) == kept


def test_blocks_are_cut_in_their_order():
    class Ordered(Cell):
        first = Affine("b a")
        pair = Diagonal("p q")

        def step(self, z, h):
            return z.a * self.pair.q + 0 * z.b

    cell = Ordered(2, 3)
    x, h = torch.randn(5, 2), torch.randn(5, 3)
    z = x @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih
    torch.testing.assert_close(cell(x, h)[0], z[:, 3:] * cell.weight_pair[3:])
    b, a = cell.first(x, h)
    torch.testing.assert_close(torch.cat([b, a], -1), z)


def test_bare_maps_split_into_input_and_hidden():
    """W x + b and U h + b' add up to the whole: each bias stands on its own side."""
    cell = cells.GRU(2, 3, biases=2)
    x, h = torch.randn(5, 2), torch.randn(5, 3)
    for whole, w, u in zip(
        cell.gates(x, h), cell.gates.input(x), cell.gates.hidden(h), strict=True
    ):
        torch.testing.assert_close(whole, w + u)
    zero = torch.zeros(3)
    torch.testing.assert_close(cell.gates.hidden(zero).n, cell.bias_hh[6:])
    torch.testing.assert_close(cell.gates.input(torch.zeros(2)).n, cell.bias_ih[6:])


def test_a_subclass_replaces_and_adds_maps():
    class Six(cells.LSTM):
        gates = Affine("i f g o e")
        extra = Diagonal()

    assert shapes(Six(2, 3)) == {
        "weight_ih": (15, 2), "weight_hh": (15, 3), "bias_ih": (15,), "weight_extra": (3,),
    }  # fmt: skip
    assert cells.LSTM.gates.blocks == ("i", "f", "g", "o")


def test_start_is_uniform_in_one_over_root_of_hidden_size(kind):
    cell = kind(40, 25)
    if type(cell).reset_parameters is not Cell.reset_parameters:
        pytest.skip("this cell starts as its paper says: see test_starts.py")
    for name, parameter in cell.named_parameters():
        assert parameter.abs().max() <= 0.2, name
        assert parameter.abs().max() > 0.2 * 0.75, name


def test_options_that_are_set_too_late_are_told():
    class Late(cells.Elman):
        def __init__(self, input_size, hidden_size):
            super().__init__(input_size, hidden_size)
            self.width = hidden_size

        @property
        def state_sizes(self):
            return (self.width,)

    with pytest.raises(elman.InputError, match=r"Late\.state_sizes .*'width'.* before super\(\)"):
        Late(3, 4)


def test_own_start():
    class Orthogonal(cells.Elman):
        def reset_parameters(self):
            super().reset_parameters()
            nn.init.orthogonal_(self.weight_hh)

    w = elman.Recurrent(Orthogonal(2, 4), 2).weight_hh_l1
    torch.testing.assert_close(w @ w.T, torch.eye(4))


def test_bound_weights_do_not_touch_the_cell(kind, agree):
    cell, other = kind(2, 3), kind(2, 3)
    x, states = torch.randn(4, 2).double(), [torch.randn(4, s).double() for s in cell.state_sizes]
    expected, own = other(x, *states), cell(x, *states)
    agree(cell.bind(dict(other.named_parameters()))(x, *states), expected, 0.0)
    agree(cell(x, *states), own, 0.0)
    agree(copy.deepcopy(cell)(x, *states), own, 0.0)


def test_blocks_of_a_parameter():
    cell = cells.GRUResetBefore(2, 3)
    assert cell.blocks_of("weight_hh") == ("r", "z")
    assert cell.blocks_of("weight_hh_candidate") == ()


def test_fill_bias_fills_one_block_of_every_map():
    class Twice(Cell):
        one = Affine("a f")
        two = Linear("f b", of="x", bias=True)

        def step(self, z, h):
            return z.a

    cell = Twice(2, 3, biases=2)
    before = {n: p.clone() for n, p in cell.named_parameters()}
    cell.fill_bias("f", 1.25)
    torch.testing.assert_close((cell.bias_ih + cell.bias_hh)[3:], torch.full((3,), 1.25))
    torch.testing.assert_close(cell.bias_two[:3], torch.full((3,), 1.25))
    for name, kept in {"bias_ih": slice(3), "bias_hh": slice(3), "bias_two": slice(3, 6)}.items():
        assert torch.equal(getattr(cell, name)[kept], before[name][kept])
    assert torch.equal(cell.weight_ih, before["weight_ih"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cells.LSTM(0, 3), ["input_size", "positive integer", "0"]),
        (lambda: cells.LSTM(2, -3), ["hidden_size", "positive integer", "-3"]),
        (lambda: cells.LSTM(2, 3.0), ["hidden_size", "positive integer", "3.0"]),
        (lambda: cells.LSTM(2, 3, biases=3), ["biases", "0, 1 or 2", "3"]),
        (lambda: cells.Elman(2, 3, "swish"), ["nonlinearity", "tanh, relu, sigmoid", "'swish'"]),
        (lambda: cells.Perceptron(2, 3, "no"), ["nonlinearity", "tanh, relu, sigmoid", "'no'"]),
        (lambda: cells.ProjectedLSTM(2, 3, 3), ["proj_size", "between 1 and", "2", "received 3"]),
        (lambda: cells.ProjectedLSTM(2, 3, -1), ["proj_size", "received -1"]),
        (lambda: Affine("i f i"), ["blocks", "different names", "'i f i'"]),
        (lambda: cells.LSTM(2, 3).fill_bias("q", 1.0), ["LSTM", "'q'", "bias"]),
        (lambda: cells.LSTM(2, 3, biases=0).fill_bias("f", 1.0), ["LSTM", "'f'", "bias"]),
        (lambda: cells.LSTM(2, 3).blocks_of("weight"), ["LSTM", "'weight'"]),
        (lambda: cells.LSTM(2, 3).size_of("m"), ["LSTM", "'m'", "x, hidden, h, c"]),
    ],
)
def test_bad_arguments(make, words, says):
    with pytest.raises(elman.InputError) as error:
        make()
    says(error, *words)


def test_unknown_block_names_the_declared_ones():
    cell = cells.LSTM(2, 3)
    with pytest.raises(AttributeError, match=r"'q'.*i, f, g, o"):
        _ = cell.gates(torch.zeros(2), torch.zeros(3)).q


class NoFirst(Cell):
    net = Affine()

    def step(self):
        return None


class WrongFirst(Cell):
    net = Affine()

    def step(self, inputs, h):
        return h


class NoAffine(Cell):
    net = Linear(of="x")

    def step(self, z, h):
        return h


class TooFewStates(Cell):
    state = ("h", "c")
    net = Affine()

    def step(self, z, h):
        return h, h


class TooManyStates(Cell):
    net = Affine()

    def step(self, z, h, c):
        return h


class SameState(Cell):
    state = ("h", "h")
    net = Affine()

    def step(self, z, h, c):
        return h, c


class NoState(Cell):
    state = ()
    net = Affine()

    def step(self, z):
        return z


class BareState(Cell):
    state = "hc"  # a reader expects a tuple; the letters would silently be two states
    net = Affine()

    def step(self, z, h, c):
        return h, c


class WrongSizes(Cell):
    state = ("h", "c")
    net = Affine()

    @property
    def state_sizes(self):
        return (self.hidden_size,)

    def step(self, z, h, c):
        return h, c


class UnknownWidth(Cell):
    net = Linear(of="memory")

    def step(self, x, h):
        return h


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (NoFirst, ["step", "x (the input)", "z", "nothing"]),
        (WrongFirst, ["step", "x (the input)", "z", "'inputs'"]),
        (NoAffine, ["takes z", "no Affine", "gates = Affine("]),
        (TooFewStates, ["step takes 1 states", "expected 2", "h, c"]),
        (TooManyStates, ["step takes 2 states", "expected 1", "h"]),
        (SameState, ["state", "once", "('h', 'h')"]),
        (NoState, ["state", "once", "()"]),
        (BareState, ["state", "'hc'", "tuple"]),
        (WrongSizes, ["state_sizes", "1", "expected 2", "h, c"]),
        (UnknownWidth, ["'memory'", "x, hidden, h"]),
    ],
)
def test_classes_that_break_the_contract(cell, words, says):
    with pytest.raises(elman.InputError) as error:
        cell(2, 3)
    says(error, cell.__name__, *words)


class HoldsModule(Cell):
    net = Affine()

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.layer = nn.Linear(3, 3)

    def step(self, z, h):
        return self.layer(z)


class HoldsParameter(Cell):
    net = Affine()

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.alpha = nn.Parameter(torch.ones(3))

    def step(self, z, h):
        return self.alpha * z


class HoldsNothing(Cell):
    def step(self, x, h):
        return x


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (HoldsModule, ["the module 'layer'", "Affine, Linear or Diagonal"]),
        (HoldsParameter, ["the parameter 'alpha'", "Affine, Linear or Diagonal"]),
        (HoldsNothing, ["no weight", "Affine, Linear or Diagonal"]),
    ],
)
def test_weights_that_are_not_declared(cell, words, says):
    """Nothing else could be compiled, stacked or named."""
    with pytest.raises(elman.InputError) as error:
        elman.Recurrent(cell(3, 3))
    says(error, cell.__name__, *words)


def test_a_cell_without_a_step_is_told_so():
    class Nothing(Cell):
        def stepp(self, x, h):
            return h

    with pytest.raises(
        elman.InputError, match=r"Nothing has no step: write def step\(self, x, h\)"
    ):
        Nothing(2, 3)
