"""Gates by name: they must be what the cells' own equations are made of."""

from __future__ import annotations

import pytest
import torch
from torch import sigmoid, tanh

import elman
from elman import Affine, Cell, cells
from elman.lens import activity
from elman.lens.activations import of_step

F64 = {"dtype": torch.float64}

NAMES = {
    "lstm": ("ifo", "g"),
    "lstm-projected": ("ifo", "g"),
    "PeepholeLSTM": ("ifo", "g"),
    "gru": ("rz", "n"),
    "gru-reset-before": ("rz", ("candidate",)),
    "rnn": ("", ("net",)),
    "rnn-sigmoid": (("net",), ""),
    "Attractor": ("f", "n"),
    "FastSlow": ("", ("net",)),
    "mrnn": ("", ("net",)),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes(kinds, name):
    cell = kinds[name](3, 4)
    states = [torch.randn(5, 2, n, **F64) for n in cell.state_sizes]
    gates, candidates, after = of_step(cell, torch.randn(5, 2, 3, **F64), states)
    assert (tuple(gates), tuple(candidates)) == tuple(map(tuple, NAMES[name]))
    assert all(v.shape == (5, 2, 4) for v in (*gates.values(), *candidates.values()))
    assert all(v.min() > 0 and v.max() < 1 for v in gates.values())
    assert [a.shape for a in after] == [s.shape for s in states]


@pytest.mark.parametrize("layer_norm", [False, True])
def test_an_lstms_memory_is_made_of_its_gates(layer_norm):
    cell = cells.LSTM(3, 4, **F64)
    network = elman.Recurrent(cells.layer_norm(cell) if layer_norm else cell, layers=2)
    x, state = torch.randn(6, 2, 3, **F64), tuple(torch.randn(2, 2, 2, 4, **F64))
    for k, found in enumerate(activity(network, x, state)):
        i, f, o = (found.gates[name] for name in "ifo")
        h, c, g = found.states["h"], found.states["c"], found.candidates["g"]
        before = torch.cat([state[1][k].unsqueeze(0), c[:-1]])
        torch.testing.assert_close(c, f * before + i * g)
        torch.testing.assert_close(h, o * tanh(c))
    y, _ = network(x, state)
    torch.testing.assert_close(h, y)


def test_a_grus_state_is_made_of_its_gates():
    for gru in (elman.GRU(3, 4, **F64), elman.GRU(3, 4, reset_after=False, **F64)):
        x = torch.randn(6, 2, 3, **F64)
        (found,) = activity(gru, x)
        h, z = found.states["h"], found.gates["z"]
        (n,) = found.candidates.values()
        before = torch.cat([torch.zeros(1, 2, 4, **F64), h[:-1]])
        torch.testing.assert_close(h, (1 - z) * n + z * before)


def test_both_directions_are_in_the_order_of_time():
    network, x = elman.LSTM(3, 4, bidirectional=True, **F64), torch.randn(6, 2, 3, **F64)
    forward, back = activity(network, x)
    y, _ = network(x)
    torch.testing.assert_close(torch.cat([forward.states["h"], back.states["h"]], -1), y)
    torch.testing.assert_close(back.states["h"], back.gates["o"] * tanh(back.states["c"]))


class OneGate(Cell):
    """All gates from one call, cut apart afterwards; one of them used twice."""

    gates = Affine("a b")

    def step(self, x, h):
        both = self.gates(x, h)
        a = sigmoid(both.a)
        return a * h + (1 - a) * tanh(both.b + sigmoid(both.a))


def test_the_first_activation_of_a_block_counts():
    cell = OneGate(3, 4, **F64)
    x, h = torch.randn(2, 3, **F64), torch.randn(2, 4, **F64)
    gates, candidates, _ = of_step(cell, x, [h])
    z = cell.gates(x, h)
    assert (list(gates), list(candidates)) == (["a"], ["b"])
    torch.testing.assert_close(gates["a"], sigmoid(z.a))
    torch.testing.assert_close(candidates["b"], tanh(z.b + sigmoid(z.a)))
