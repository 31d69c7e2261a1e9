"""Dropout between layers: what is dropped, how often, and for how long."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import elman
from elman import Cell, Diagonal


class Echo(Cell):
    """Gives its input on, so that the output of two layers is the mask between them."""

    scale = Diagonal()

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x * self.scale

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight_scale)


def masks(p: float, variational: bool = False, layers: int = 2, **shape: int) -> Tensor:
    steps, batch, width = shape.get("steps", 20), shape.get("batch", 50), shape.get("width", 40)
    rnn = elman.Recurrent(Echo(width, width), layers, dropout=p, variational=variational)
    return rnn(torch.ones(steps, batch, width))[0]


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_share_and_scale(p, variational):
    mask = masks(p, variational, steps=4, batch=200, width=100)
    assert torch.equal(mask, (mask != 0) / (1 - p))
    # 20,000 independent draws, or more: five standard deviations.
    assert abs((mask == 0).double().mean() - p) < 5 * (p * (1 - p) / 20_000) ** 0.5


def test_plain_dropout_draws_at_every_step_and_row():
    mask = masks(0.5)
    assert not torch.equal(mask[0], mask[1])
    assert not torch.equal(mask[:, 0], mask[:, 1])


def test_variational_dropout_holds_for_the_sequence_only():
    mask = masks(0.5, variational=True)
    assert torch.equal(mask, mask[:1].expand_as(mask))
    assert not torch.equal(mask[0, 0], mask[0, 1]), "sequences must differ"
    assert not torch.equal(mask[0], masks(0.5, variational=True)[0]), "calls must differ"


def test_variational_dropout_holds_in_packed_sequences():
    rnn = elman.Recurrent(Echo(30, 30), 2, dropout=0.5, variational=True)
    packed = pack_padded_sequence(torch.ones(6, 3, 30), torch.tensor([2, 6, 4]), False, False)
    y, lengths = nn.utils.rnn.pad_packed_sequence(rnn(packed)[0])
    for b, n in enumerate(lengths.tolist()):
        assert torch.equal(y[:n, b], y[:1, b].expand(n, 30))


def test_between_layers_only():
    """One mask for each gap: with three layers an output is kept with probability (1 − p)²."""
    assert torch.equal(masks(0.5, layers=1), torch.ones(20, 50, 40))
    kept = (masks(0.5, layers=3) != 0).double().mean()
    assert abs(kept - 0.25) < 0.02


@pytest.mark.parametrize("variational", [False, True])
def test_nothing_in_eval(variational, agree):
    rnn = elman.LSTM(3, 4, 3, dropout=0.9, variational=variational).eval()
    same = elman.LSTM(3, 4, 3)
    same.load_state_dict(rnn.state_dict())
    x = torch.randn(5, 2, 3)
    agree(rnn(x), same(x), 0.0)
    agree(rnn.step(x[0]), same.step(x[0]), 0.0)


def test_step_drops_while_training():
    rnn = elman.Recurrent(Echo(40, 40), 2, dropout=0.5)
    y, _ = rnn.step(torch.ones(3, 40))
    assert set(y.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "RNN"])
def test_same_statistics_as_torch(layer):
    """Moments over many rows of one input: a mask at another place would move them."""
    ours = getattr(elman, layer)(4, 6, 2, dropout=0.4)
    theirs = getattr(nn, layer)(4, 6, 2, dropout=0.4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 1, 4).expand(3, 20_000, 4)
    with torch.no_grad():
        a, b = ours(x)[0][-1], theirs(x)[0][-1]
    torch.testing.assert_close(a.mean(0), b.mean(0), rtol=0, atol=0.005)
    torch.testing.assert_close(a.std(0), b.std(0), rtol=0.03, atol=0)
