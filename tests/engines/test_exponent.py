"""The largest Lyapunov exponent, beside all of them from the Jacobians."""

import math

import pytest
import torch

from elman import cells
from elman.lens import largest_lyapunov_exponent, lyapunov_exponents, step_jacobians

F64 = {"dtype": torch.float64}


@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_it_is_the_first_of_all_exponents(gain):
    torch.manual_seed(0)
    cell = cells.make("rnn", 3, 32, **F64)
    u = torch.randn(32, 32, **F64)
    with torch.no_grad():
        cell.weight_hh.copy_(gain * u / torch.linalg.eigvals(u).abs().max())
        cell.weight_ih.mul_(0.1)
    x = torch.randn(600, 1, 3, **F64)
    states = [torch.zeros(1, 32, **F64)]
    with torch.no_grad():
        for x_t in x[:-1]:
            states.append(*cell(x_t, states[-1]))
    every = lyapunov_exponents(step_jacobians(cell, x[:, 0], [torch.cat(states)]), discard=150)
    found = largest_lyapunov_exponent(cell, x)
    assert found == pytest.approx(float(every[0]), abs=0.05)
    assert (found > 0) == (gain > 1)


def test_a_linear_recurrence_has_its_slowest_decay():
    cell = cells.make("lru", 2, 4, **F64)
    found = largest_lyapunov_exponent(cell, torch.randn(400, 3, 2, **F64))
    with torch.no_grad():
        a, _ = cell.coefficients(torch.zeros(1, 2, **F64))
        radius = float(torch.complex(*a.chunk(2, -1)).abs().max())
    assert found == pytest.approx(math.log(radius), abs=0.02)


def test_what_remembers_nothing():
    assert largest_lyapunov_exponent(cells.make("mlp", 2, 3), torch.randn(5, 1, 2)) == -math.inf
