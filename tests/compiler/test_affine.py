"""``elman::affine``: what PyTorch computes and what a target provides in its place are the same."""

from __future__ import annotations

import pytest
import torch

import elman.compiler.cpu  # noqa: F401
from elman.compiler import affine as maps


@pytest.fixture(params=["provided", "PyTorch's"])
def way(request, monkeypatch):
    if request.param == "PyTorch's":
        monkeypatch.setattr(maps, "_provided", {})


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_it_is_x_w_plus_b(way, rows, biased, agree, gradients):
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((rows, 7), (9, 7), (9,))
    )
    inputs = [x, weight, *([bias] if biased else [])]
    received = maps.affine(bias if biased else None, x, weight.t())
    expected = torch.nn.functional.linear(x, weight, bias if biased else None)
    agree(received, expected)
    agree(gradients([received], inputs), gradients([expected], inputs))


def test_gradients_that_nobody_wants_are_not_computed(way):
    x, weight = torch.randn(3, 2), torch.randn(2, 4, requires_grad=True)
    maps.affine(None, x, weight).sum().backward()
    assert x.grad is None and weight.grad.shape == weight.shape


def test_it_has_gradients_of_gradients(way):
    torch.manual_seed(0)
    inputs = [
        torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((4,), (3, 2), (2, 4))
    ]
    assert torch.autograd.gradgradcheck(maps.affine, inputs)
    torch.library.opcheck(torch.ops.elman.affine.default, inputs)
