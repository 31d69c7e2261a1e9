"""Constants of a cell: what a step reads and nobody learns."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn, tanh

import elman
from elman import Affine, Cell, Constant, Recurrent


class Ladder(Cell):
    """A unit hears those below it only; each has a rate of its own."""

    net = Affine(mask="below")

    @Constant
    def rate(self) -> torch.Tensor:
        return 1 / (torch.arange(self.hidden_size) + 1.0)

    @Constant
    def below(self) -> torch.Tensor:
        return torch.ones(self.hidden_size, self.hidden_size).tril(-1)

    def step(self, z, h):
        return h + self.rate * (tanh(z) - h)


def test_it_is_a_buffer_and_no_parameter():
    rnn = Recurrent(Ladder(3, 4, biases=2), 2, bidirectional=True)
    assert len(list(rnn.named_parameters())) == 4 * 4
    ends = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    assert {name for name, _ in rnn.named_buffers()} == {
        f"constant_{name}{end}" for name in ("rate", "below") for end in ends
    }
    assert not any(b.requires_grad for b in rnn.buffers())


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_what_it_computes(engine, agree):
    cell = Ladder(3, 4, dtype=torch.float64)
    x, h = torch.randn(2, 3).double(), torch.randn(2, 4).double()
    below = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]).double()
    z = tanh(x @ cell.weight_ih.T + h @ (cell.weight_hh * below).T + cell.bias_ih)
    rate = torch.tensor([1, 1 / 2, 1 / 3, 1 / 4]).double()
    with elman.engine(engine):
        y, _ = Recurrent(cell)(x.unsqueeze(0), h.unsqueeze(0))
    agree(y[0], (1 - rate) * h + rate * z, 1e-7)  # the rate was made in single precision


def test_all_engines_and_steps_agree(agree, gradients):
    rnn = Recurrent(Ladder(3, 5), 2).double()
    assert rnn.engine == "native"
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    inputs = [x, *rnn.parameters()]
    results = []
    for engine in ("native", "reference"):
        with elman.engine(engine):
            results.append(rnn(x))
    agree(*results)
    agree(gradients(results[0], inputs), gradients(results[1], inputs))
    with torch.no_grad():
        state = rnn.initial_state(2)
        for row in x:
            y, state = rnn.step(row, state)
    agree(y, results[0][0][-1])


def test_saved_copied_and_moved_with_the_weights(agree):
    rnn = Recurrent(Ladder(3, 4))
    with torch.no_grad():
        rnn.constant_rate_l0.mul_(0.5)
    x = torch.randn(4, 2, 3)
    y = rnn(x)
    assert not torch.equal(y[0], Recurrent(rnn.cells[0].resized(3, 4))(x)[0])
    other = Recurrent(Ladder(3, 4))
    other.load_state_dict(rnn.state_dict())
    for twin in (other, copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        agree(twin(x), y, 0.0)
    assert rnn.double().constant_rate_l0.dtype == torch.float64
    agree(rnn(x.double())[0].float(), y[0], 1e-5)


def test_transforms_keep_them(agree):
    cell = elman.cells.zoneout(elman.cells.recurrent_dropout(Ladder(3, 4), 0.5), 0.25)
    rnn = Recurrent(cell).eval()
    x = torch.randn(1, 2, 3)
    z, h = rnn(x)[0], torch.zeros(2, 4)
    w = cell.state_dict()
    inner = w["constant_rate"] * tanh(x[0] @ w["weight_ih"].T + w["bias_ih"])
    agree(z[0], 0.25 * h + 0.75 * inner, 1e-6)
    assert type(cell).maps()[0].mask == "below"


def test_a_buffer_that_is_not_declared_is_refused():
    class Holds(Cell):
        net = Affine()

        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.register_buffer("scale", torch.ones(4))

        def step(self, z, h):
            return self.scale * z

    with pytest.raises(elman.InputError, match=r"the buffer 'scale'.*Constant"):
        Recurrent(Holds(3, 4))


def test_a_constant_is_no_place_for_weights():
    """Its tensor is held without a gradient, even if it was made from a parameter."""

    class Leaks(Cell):
        net = Affine()

        @Constant
        def gain(self) -> torch.Tensor:
            return nn.Parameter(torch.ones(self.hidden_size))

        def step(self, z, h):
            return self.gain * tanh(z)

    cell = Leaks(3, 4)
    assert [n for n, _ in cell.named_buffers()] == ["constant_gain"]
    assert not cell.constant_gain.requires_grad
