"""Planning the three programs: in a time that grows with the step, however its values depend."""

from __future__ import annotations

import time
import warnings

import pytest
import torch
from torch import tanh

import elman
from elman import Affine, Cell, Recurrent, cells
from elman.compiler import differentiate
from elman.compiler.cpu import source


class Chain(Cell):
    """One value through as many operations as it says."""

    net = Affine()

    def __init__(self, input_size, hidden_size, length=1, **options):
        self.length = length
        super().__init__(input_size, hidden_size, **options)

    def step(self, z, h):
        for _ in range(self.length):
            z = tanh(z + h)
        return z


class Squares(Chain):
    """Each value is read twice by the next: 2ⁿ ways lead to the first."""

    def step(self, z, h):
        for _ in range(self.length):
            z = z * z + h
        return z


@pytest.mark.parametrize("length", [200, 1500])
def test_a_step_too_long_to_be_compiled_falls_back_with_one_sentence(length):
    rnn = Recurrent(Chain(2, 3, length))
    x = torch.randn(2, 1, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y, _ = rnn(x)
        with torch.no_grad():
            rnn.step(x[0], rnn.step(x[0])[1])  # nor does a stream try to
    (warning,) = caught
    text = str(warning.message)
    for word in ("Chain runs on the reference engine", "operations", __file__):
        assert word in text, text
    assert "Recursion" not in text
    with elman.engine("reference"):
        torch.testing.assert_close(rnn(x)[0], y)


def test_a_chain_that_is_long_but_not_too_long_needs_no_deep_stack(monkeypatch):
    monkeypatch.setattr(differentiate, "MOST_NODES", 10_000)
    assert source(Chain(2, 3, 250)).count("tanh") >= 250


@pytest.mark.parametrize(
    "cell", [Squares(2, 3, 60), cells.RecurrentHighway(2, 3, 40)], ids=lambda c: type(c).__name__
)
def test_values_that_many_ways_lead_to_are_looked_at_once(cell):
    """Each took longer than anybody waits: two to the power of its depth."""
    before = time.process_time()
    assert source(cell)
    assert time.process_time() - before < 10
