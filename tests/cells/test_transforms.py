"""Cells from cells: what they compute, that they are compiled, and how they are trained."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

import elman
from elman.cells import (
    GRU,
    LSTM,
    GRUResetBefore,
    layer_norm,
    recurrent_dropout,
    transforms,
    zoneout,
)

TRANSFORMS = {
    "zoneout": lambda c: zoneout(c, 0.3),
    "dropout": lambda c: recurrent_dropout(c, 0.3),
    "norm": layer_norm,
    "zoneout of norm": lambda c: zoneout(layer_norm(c), 0.2),
    "zoneout of dropout": lambda c: zoneout(recurrent_dropout(c, 0.2), 0.2),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("kind", [LSTM, GRU, GRUResetBefore])
@pytest.mark.parametrize("training", [True, False])
def test_compiled_and_interpreted_agree(name, kind, training):
    torch.manual_seed(0)
    network = elman.Recurrent(TRANSFORMS[name](kind(3, 5)), 2).double().train(training)
    assert network.engine == "native"
    x = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for engine in ("native", "reference"):
        torch.manual_seed(1)
        with elman.engine(engine):
            y, state = network(x)
            loss = y.sin().sum() + sum(s.cos().sum() for s in state)
            found.append([y, *torch.autograd.grad(loss, [x, *network.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_zoneout_keeps_units_as_often_as_asked():
    torch.manual_seed(0)
    network = elman.Recurrent(zoneout(elman.cells.Elman(1, 4), 0.25))
    y, _ = network(torch.randn(2000, 3, 1))
    kept = (y[1:] == y[:-1]).float().mean()
    assert abs(kept - 0.25) < 0.02


@pytest.mark.parametrize("p", (0.0, 0.1, 0.5, 0.9, 0.999999))
def test_units_are_drawn_apart_and_as_often_as_asked(p):
    torch.manual_seed(0)
    drawn = transforms._drawn(p, torch.empty(0), (3, 40_001))
    assert drawn.shape == (3, 40_001) and set(drawn.unique().tolist()) <= {0.0, 1.0}
    fours = drawn.flatten()[:120_000].view(-1, 4)
    assert (fours.mean(0) - p).abs().max() < 0.015  # 5 standard errors of each of the four
    assert ((fours[:, 0] * fours[:, 1]).mean() - p * p).abs() < 0.015


@pytest.mark.parametrize("name", elman.cells.CELLS)
@pytest.mark.parametrize("training", [True, False])
def test_zoneout_leaves_clocks_and_windows_alone(name, training):
    torch.manual_seed(0)
    cell = elman.cells.make(name, 3, 32)
    zoned = zoneout(cell, 0.4) if training else zoneout(cell, 0.4).without_noise()
    x = torch.randn(1, 2, 3)
    states = [torch.rand(2, size) for size in cell.state_sizes]
    found = zoned(torch.cat([x, zoned.noise(x)], -1)[0] if training else x[0], *states)
    for state, own, plain in zip(cell.state, found, cell(x[0], *states), strict=True):
        assert torch.equal(own, plain) == (state in cell.bookkeeping)


def test_zoneout_of_a_clockwork_keeps_time():
    torch.manual_seed(0)
    network = elman.Recurrent(zoneout(elman.cells.Clockwork(3, 8), 0.4))
    for mode in (True, False):
        for engine in ("native", "reference"):
            with elman.engine(engine):
                _, (_, clock) = network.train(mode)(torch.randn(5, 2, 3))
            assert torch.equal(clock, torch.full((1, 2, 1), 5.0))


def test_bookkeeping_that_is_no_state_beside_the_output_is_refused():
    class Wrong(elman.cells.Elman):
        bookkeeping = ("h",)

    with pytest.raises(elman.InputError, match=r"bookkeeping must be .* received 'h'"):
        Wrong(3, 4)


def test_zoneout_at_rest_is_the_mean():
    torch.manual_seed(0)
    cell = LSTM(3, 4)
    network = elman.Recurrent(zoneout(cell, 0.4)).eval()
    x, state = torch.randn(1, 2, 3), [torch.randn(1, 2, 4) for _ in range(2)]
    _, (h, c) = network(x, tuple(state))
    new = cell(x[0], state[0][0], state[1][0])
    for received, old, own in zip((h[0], c[0]), (state[0][0], state[1][0]), new, strict=True):
        torch.testing.assert_close(received, 0.4 * old + 0.6 * own)


def test_recurrent_dropout_at_rest_is_the_cell():
    torch.manual_seed(0)
    cell, x = GRU(3, 4), torch.randn(5, 2, 3)
    y, _ = elman.Recurrent(recurrent_dropout(cell, 0.5)).eval()(x)
    torch.testing.assert_close(y, elman.Recurrent(cell)(x)[0])


def test_recurrent_dropout_misses_the_same_units_all_along():
    cell = recurrent_dropout(LSTM(3, 50), 0.4)
    noise = cell.noise(torch.zeros(7, 2, 3))
    assert torch.equal(noise, noise[:1].expand(7, -1, -1))
    assert not torch.equal(noise[0, 0], noise[0, 1])
    torch.testing.assert_close(noise.unique(), torch.tensor([0.0, 1 / 0.6]))


def test_layer_norm_is_its_equation():
    torch.manual_seed(0)
    cell = layer_norm(elman.cells.Elman(3, 4))
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    (received,) = cell(x, h)
    expected = torch.tanh(
        F.layer_norm(x @ cell.weight_ih.t(), (4,))
        + cell.bias_ih
        + F.layer_norm(h @ cell.weight_hh.t(), (4,))
    )
    torch.testing.assert_close(received, expected)


def test_steps_act_as_in_evaluation():
    torch.manual_seed(0)
    network = elman.Recurrent(zoneout(LSTM(3, 4), 0.3), 2).train()
    x, state = torch.randn(5, 2, 3), network.initial_state(2)
    outputs = []
    with torch.no_grad():
        for row in x:
            y, state = network.step(row, state)
            outputs.append(y)
        expected, _ = network.eval()(x)
    torch.testing.assert_close(torch.stack(outputs), expected)


def test_a_rate_that_is_none_is_refused():
    for transform in (zoneout, recurrent_dropout):
        with pytest.raises(elman.InputError, match=r"\[0, 1\), received 1\.5"):
            transform(LSTM(3, 4), 1.5)


def test_a_cell_without_a_map_is_refused():
    class Bare(elman.Cell):
        net = elman.Linear(of="x")

        def step(self, x, h):
            return torch.tanh(self.net(x))

    with pytest.raises(elman.InputError, match="no Affine"):
        layer_norm(Bare(3, 4))


def test_deeper_layers_are_made_alike():
    network = elman.Recurrent(layer_norm(GRU(3, 4)), hidden_sizes=[4, 6])
    assert torch.equal(network.weight_norm_ih_l1, torch.ones(18))


def test_transformed_cells_are_pickled():
    """Their classes are made when they are asked for: another process has to make them again."""
    torch.manual_seed(0)
    for transform in TRANSFORMS.values():
        network = elman.Recurrent(transform(GRU(3, 4)), 2).eval()
        x = torch.randn(5, 2, 3)
        twin = pickle.loads(pickle.dumps(network))
        assert type(twin.cells[0]) is type(network.cells[0])
        torch.testing.assert_close(twin(x)[0], network(x)[0], rtol=0, atol=0)
        cell = transform(LSTM(3, 4))
        assert torch.equal(copy.deepcopy(cell).weight_hh, cell.weight_hh)
