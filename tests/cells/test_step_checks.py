"""Steps that give something else than the next states."""

from __future__ import annotations

import pytest
import torch
from torch import tanh

import elman
from elman import Affine, Cell


class ReturnsOne(Cell):
    state = ("h", "c")
    net = Affine()

    def step(self, z, h, c):
        return tanh(z)


class ReturnsThree(Cell):
    net = Affine()

    def step(self, z, h):
        return z, z, z


class ReturnsNothing(Cell):
    net = Affine()

    def step(self, z, h):
        tanh(z)


class ReturnsNumber(Cell):
    state = ("h", "n")
    net = Affine()

    def step(self, z, h, n):
        return tanh(z), 0.0


class ReturnsWide(Cell):
    net = Affine("a b")

    def step(self, z, h):
        return torch.cat(list(z), -1)


class ReturnsOneRow(Cell):
    """Broadcasting would hide this one until rows are read apart."""

    net = Affine()

    def step(self, z, h):
        return tanh(z).mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (ReturnsOne, ["returned 1 values", "expected 2", "h, c"]),
        (ReturnsThree, ["returned 3 values", "expected 1", "h"]),
        (ReturnsNothing, ["returned NoneType", "tensor", "h"]),
        (ReturnsNumber, ["returned n", "float", "tensor"]),
        (ReturnsWide, ["returned h", "(4, 6)", "expected (4, 3)"]),
        (ReturnsOneRow, ["returned h", "(1, 3)", "expected (4, 3)"]),
    ],
)
@pytest.mark.parametrize("how", ["forward", "step"])
def test_steps_that_return_something_else(cell, words, how, says):
    rnn = elman.Recurrent(cell(2, 3))
    with pytest.raises(elman.InputError) as error:
        rnn(torch.randn(5, 4, 2)) if how == "forward" else rnn.step(torch.randn(4, 2))
    says(error, f"{cell.__name__}.step", *words)
