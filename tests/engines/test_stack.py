"""All layers in one call of PyTorch's kernels, as on a GPU, are the layers one by one."""

from __future__ import annotations

import pytest
import torch

import elman
from elman import nested
from elman.engines import pytorch

MAKE = {
    "lstm": elman.LSTM,
    "projected": lambda *a, **k: elman.LSTM(*a, proj_size=2, **k),
    "gru": elman.GRU,
    "relu": lambda *a, **k: elman.RNN(*a, nonlinearity="relu", **k),
}


@pytest.fixture
def one_call(monkeypatch):
    """Let the CPU stack layers as a GPU does; how often it did."""
    seen, real = [], pytorch.run_stack
    monkeypatch.setattr(pytorch, "_STACKING", ("cpu",))
    monkeypatch.setattr(pytorch, "run_stack", lambda *a: seen.append(1) or real(*a))
    return seen


@pytest.mark.parametrize("lengths", [None, [5, 2, 0]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_one_call_is_layer_by_layer(make, both, bias, lengths, one_call, agree, gradients, leaves):
    rnn = make(3, 4, 2, bidirectional=both, bias=bias, dtype=torch.float64)
    x = torch.randn(5, 3, 3, dtype=torch.float64, requires_grad=True)
    state = nested.map(lambda s: torch.randn_like(s).requires_grad_(), rnn.initial_state(3))
    inputs = [x, *leaves(state), *rnn.parameters()]
    with elman.engine("reference"):
        expected = rnn(x, state, lengths=lengths)
    assert not one_call
    found = rnn(x, state, lengths=lengths)
    assert one_call
    agree(found, expected)
    agree(gradients(found, inputs), gradients(expected, inputs))
    agree(rnn(x)[0], rnn(x, rnn.initial_state(3))[0])


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
def test_what_stands_between_layers_stands_between_them(one_call):
    x = torch.randn(5, 3, 4)
    for options in ({"dropout": 0.5}, {"skip": "residual"}, {"hidden_sizes": [4, 3]}):
        given = {} if "hidden_sizes" in options else {"hidden_size": 4, "num_layers": 2}
        elman.LSTM(4, **given, **options)(x)
    plain = elman.LSTM(4, 4, 2)
    plain(x, resets=torch.zeros(5, 3, dtype=torch.bool))
    plain(x, return_states="all")
    assert not one_call
    elman.LSTM(4, 4, 2, dropout=0.5).eval()(x)
    elman.LSTM(4, 4, 2, weight_drop=0.5)(x)
    assert len(one_call) == 2
