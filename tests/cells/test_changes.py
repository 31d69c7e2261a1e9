"""Options that change after a cell was made: they take effect everywhere, or say why not."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import elman
from elman import cells
from elman.cells import Affine, Cell, Constant, Linear
from elman.engines import kept

SLOPE = 1.0
F64 = torch.float64


def helper(z):
    return z * SLOPE


@dataclasses.dataclass
class Settings:
    slope: float = 1.0


class Sloped(Cell):
    """Reads an option of every kind."""

    gates = Affine("a")
    of_class = 1.0
    listed = [1.0]  # noqa: RUF012

    def __init__(self, input_size, hidden_size, slope=1.0, **options):
        super().__init__(input_size, hidden_size, **options)
        self.slope, self.coefficients, self.named = slope, [1.0, 2.0], {"a": [1.0]}
        self.settings, self.array = Settings(), np.ones(2)
        self.leak = nn.LeakyReLU(0.5)
        self.function = lambda z: z * slope

    def step(self, z, h):
        factor = self.coefficients[0] * self.named["a"][0] * self.settings.slope
        factor = factor * self.slope * float(self.array[0]) * self.of_class * self.listed[0]
        return torch.tanh(self.leak(helper(self.function(z.a))) * factor)


def networks(layers=1):
    torch.manual_seed(0)
    cell = Sloped(3, 4, dtype=F64)
    return cell, elman.Recurrent(cell, layers), torch.randn(2, 2, 3, dtype=F64)


def set_on_the_cell(cell, rnn):
    cell.slope = 0.5


def set_on_one_of_the_networks(cell, rnn):
    rnn.cells[0].slope = 0.5


def set_within_a_list(cell, rnn):
    cell.coefficients[0] = 0.5


def set_within_a_nested_list(cell, rnn):
    rnn.cells[0].named["a"][0] = 0.5


def set_within_an_object(cell, rnn):
    cell.settings.slope = 0.5


def set_within_an_array(cell, rnn):
    cell.array[0] = 0.5


def set_within_a_module(cell, rnn):
    cell.leak.negative_slope = 0.25


def replaced_module(cell, rnn):
    cell.leak = nn.LeakyReLU(0.25)


def replaced_function(cell, rnn):
    cell.function = lambda z: z * 0.5


def set_on_the_class(cell, rnn):
    Sloped.of_class = 0.5


def set_within_the_class(cell, rnn):
    Sloped.listed[0] = 0.5


def hidden_by_an_instance(cell, rnn):
    cell.of_class = 0.5


def set_globally(cell, rnn):
    global SLOPE
    SLOPE = 0.5


CHANGES = [
    set_on_the_cell, set_on_one_of_the_networks, set_within_a_list, set_within_a_nested_list,
    set_within_an_object, set_within_an_array, set_within_a_module, replaced_module,
    replaced_function, set_on_the_class, set_within_the_class, hidden_by_an_instance, set_globally,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_an_option_that_changes_takes_effect(change, results):
    global SLOPE
    cell, rnn, x = networks()
    assert rnn.engine == "native"
    before = results(rnn, x)
    try:
        change(cell, rnn)
        after = results(rnn, x)
        assert not torch.allclose(before, after)
    finally:
        SLOPE, Sloped.of_class = 1.0, 1.0
        Sloped.listed[0] = 1.0


def test_an_option_is_set_in_every_layer_or_in_one(results):
    cell, rnn, x = networks(2)
    results(rnn, x)
    cell.slope = 0.5
    assert [c.slope for c in rnn.cells] == [0.5, 0.5]
    results(rnn, x)
    rnn.cells[1].slope = 0.25
    assert [c.slope for c in rnn.cells] == [0.5, 0.25]
    assert cell.slope == 0.5
    results(rnn, x)
    del cell.named
    assert not any(hasattr(c, "named") for c in rnn.cells)


def test_deeper_layers_are_made_like_the_cell_as_it_is():
    torch.manual_seed(0)
    cell = Sloped(3, 4, dtype=F64)
    cell.slope, cell.coefficients[1], cell.leak.negative_slope = 0.25, 7.0, 0.125
    _, deeper = elman.Recurrent(cell, 2).cells
    assert (deeper.slope, deeper.coefficients, deeper.leak.negative_slope) == (
        0.25, [1.0, 7.0], 0.125,
    )  # fmt: skip
    deeper.coefficients[1] = 8.0
    assert cell.coefficients[1] == 7.0


def test_that_layers_are_made_like_the_cell_draws_no_numbers():
    torch.manual_seed(0)
    elman.LSTM(3, 4, 3)
    after = torch.rand(1)
    torch.manual_seed(0)
    for width in (3, 4, 4):
        elman.LSTM(width, 4)
    assert torch.equal(after, torch.rand(1))


def test_minus_zero_and_types_are_told_apart():
    class Divides(Cell):
        gates = Affine("a")
        zero = 0.0

        def step(self, z, h):
            return torch.atan(1 / (h * 0 + self.zero)) + z.a * 0

    cell = Divides(3, 4, dtype=F64)
    rnn, x = elman.Recurrent(cell), torch.ones(1, 1, 3, dtype=F64)
    assert bool((rnn(x)[0] > 0).all())
    cell.zero = -0.0
    with elman.engine("reference"):
        expected = rnn(x)[0]
    torch.testing.assert_close(rnn(x)[0], expected)


@pytest.mark.parametrize("transform", [cells.zoneout, cells.recurrent_dropout, cells.layer_norm])
def test_a_transformed_cell_follows_the_one_that_it_is_made_from(transform, results):
    torch.manual_seed(0)
    cell = Sloped(3, 4, dtype=F64)
    rnn, x = elman.Recurrent(transform(cell)).eval(), torch.randn(2, 2, 3, dtype=F64)
    before = results(rnn, x)
    cell.slope = 0.25
    assert not torch.allclose(results(rnn, x), before)


def test_copies_are_apart(results):
    _, rnn, x = networks()
    before = results(rnn, x)
    for other in (copy.deepcopy(rnn), copy.copy(rnn._cells[0]), rnn._cells[0].bind({})):
        if isinstance(other, elman.Recurrent):
            other.cells[0].slope = 0.25
            assert not torch.allclose(results(other, x), before)
        else:
            other.slope = 0.125
        assert torch.equal(results(rnn, x), before)


def test_copies_of_noisy_networks_follow_their_own_cells(results):
    torch.manual_seed(0)
    rnn = elman.Recurrent(cells.zoneout(cells.Elman(3, 4, nonlinearity="relu", dtype=F64))).eval()
    x = torch.randn(2, 2, 3, dtype=F64)
    for other in (rnn, copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        before = results(other, x)
        other.cells[0].nonlinearity = "tanh"
        assert not torch.allclose(results(other, x), before)


class Depth(Cell):
    state = ("h",)
    depth = 2
    maps_of_h = Linear(of="h", repeat="depth")

    def step(self, x, h):
        for inner in self.maps_of_h:
            h = torch.tanh(inner(h))
        return h


class Masked(Cell):
    gates = Affine("a")

    def __init__(self, input_size, hidden_size, scale=2.0, slope=1.0):
        self.scale = scale
        super().__init__(input_size, hidden_size)
        self.slope = slope

    @Constant
    def fixed(self):
        return torch.rand(self.hidden_size) * self.scale

    def step(self, z, h):
        return torch.tanh(z.a * self.fixed * self.slope)


@pytest.mark.parametrize(
    ("cell", "name", "value"),
    [
        (cells.LSTM(3, 4), "hidden_size", 5),
        (cells.LSTM(3, 4), "biases", 2),
        (Depth(3, 4), "depth", 3),
        (Masked(3, 4), "scale", 3.0),
        (cells.Clockwork(3, 8), "periods", (1, 3)),
    ],
)
@pytest.mark.parametrize("in_a_network", [False, True])
def test_what_weights_and_constants_were_made_by_is_refused(cell, name, value, in_a_network):
    rnn = elman.Recurrent(cell) if in_a_network else None
    before = getattr(cell, name)
    with pytest.raises(elman.InputError, match=f"{name} decides .* make a new one"):
        setattr(cell, name, value)
    assert getattr(cell, name) == before
    setattr(cell, name, before)
    if rnn is not None:
        with pytest.raises(elman.InputError, match=f"{name} decides"):
            setattr(rnn.cells[0], name, value)
        assert getattr(rnn.cells[0], name) == before


def test_a_random_constant_is_no_hindrance_to_other_options():
    cell = Masked(3, 4)
    rnn = elman.Recurrent(cell)
    before = cell.fixed.clone()
    cell.slope = 2.0
    assert torch.equal(cell.fixed, before) and rnn.cells[0].slope == 2.0


def test_a_networks_weights_are_its_own():
    cell = cells.LSTM(3, 4)
    rnn = elman.Recurrent(cell)
    for owner in (cell, rnn.cells[0]):
        with pytest.raises(elman.InputError, match="weight_ih belongs to a network"):
            owner.weight_ih = nn.Parameter(torch.zeros(16, 3))
    del rnn
    gc.collect()
    cell.weight_ih = nn.Parameter(torch.zeros(16, 3))


def test_how_a_network_was_made_is_fixed():
    rnn = elman.RNN(3, 4, 2)
    for name, value in {
        "hidden_size": 5, "num_layers": 3, "skip": "residual", "bidirectional": True,
        "learn_initial_state": True, "nonlinearity": "relu", "bias": False,
    }.items():  # fmt: skip
        with pytest.raises(elman.InputError, match=f"{name} is decided when a network is made"):
            setattr(rnn, name, value)
        setattr(rnn, name, getattr(rnn, name))
    rnn.dropout, rnn.batch_first = 0.5, True
    assert rnn(torch.zeros(1, 2, 3))[0].shape == (1, 2, 4)


def test_cells_with_lists_share_their_kernels():
    x = torch.zeros(1, 1, 3)
    networks = [elman.Recurrent(Sloped(3, 4))]
    networks[0](x)
    count = len(kept.COMPILED)
    for _ in range(3):
        networks.append(elman.Recurrent(Sloped(3, 4)))
        networks[-1](x)
    assert len(kept.COMPILED) == count


def test_compiled_code_follows_options_and_mode(results):
    cell, rnn, x = networks()
    compiled = torch.compile(rnn, fullgraph=True, backend="eager")

    def check():
        torch.testing.assert_close(compiled(x)[0], results(rnn, x))

    check()
    rnn.eval()
    check()
    cell.slope = 0.5
    check()
    cell.coefficients[0] = 0.25
    check()
