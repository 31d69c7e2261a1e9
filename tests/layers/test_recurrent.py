"""Networks in their weights' type, whatever PyTorch's own is."""

from __future__ import annotations

import pytest
import torch

import elman
from elman.cells import CELLS, make
from elman.lens import activity, gradient_flow

TYPES = [
    (torch.float64, torch.float64), (torch.float32, torch.float64), (torch.float64, torch.float32)
]  # fmt: skip
"""PyTorch's default and the weights'."""


@pytest.fixture(params=TYPES, ids=str)
def types(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param[0])
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_in_every_type(name, types):
    standard, dtype = types
    if dtype == torch.float32 and name not in ("rnn", "lstm", "lru", "clockwork"):
        return  # kernels of the other type are built for few
    network = elman.Recurrent(make(name, 3, 4), layers=1)
    assert next(network.parameters()).dtype == standard
    network = network.to(dtype)
    x = torch.randn(4, 2, 3, dtype=dtype, requires_grad=True)
    lengths, resets = torch.tensor([4, 2]), torch.rand(4, 2) < 0.3
    results = []
    for engine in ("auto", "reference"):
        with elman.engine(engine):
            y, _ = network(x, lengths=lengths, resets=resets)
        leaves = [x, *(p for p in network.parameters() if p.requires_grad)]
        results.append([y, *torch.autograd.grad(y.sum(), leaves, allow_unused=True)])
    for a, b in zip(*results, strict=True):
        if b is not None and a is not None:
            assert a.dtype == b.dtype == dtype
            torch.testing.assert_close(a, b)
    with torch.no_grad():
        whole, state = network(x)[0], network.initial_state(2)
        for x_t, y_t in zip(x, whole, strict=True):
            y, state = network.step(x_t, state)
            torch.testing.assert_close(y, y_t)


def test_the_lens_in_every_type(types):
    _, dtype = types
    network = elman.LSTM(3, 4, num_layers=2).to(dtype)
    x = torch.randn(5, 2, 3, dtype=dtype)
    flow = gradient_flow(network, x)
    assert flow.cells[0].norms.dtype == torch.float64 and flow.cells[0].norms[-1] > 0
    assert activity(network, x)[0].gates["f"].dtype == dtype
