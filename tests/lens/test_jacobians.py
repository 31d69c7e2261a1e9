"""Jacobians, their products, singular values and Lyapunov exponents against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman import InputError
from elman.lens import lyapunov_exponents, product, singular_values, step_jacobians

F64 = {"dtype": torch.float64}


def trajectory(cell, x):
    """The states before each step, (T, size) for each, and the function of the whole run."""
    states = [torch.randn(n, **F64) for n in cell.state_sizes]
    rows = []
    for x_t in x:
        rows.append(states)
        states = [s.detach() for s in cell(x_t, *states)]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


@given(st.integers(1, 3), st.integers(2, 4), st.integers(1, 5))
def test_the_product_is_the_jacobian_of_all_steps(kind, inputs, hidden, steps):
    cell = kind(inputs, hidden)
    x = torch.randn(steps, inputs, **F64)
    states = trajectory(cell, x)

    def run(s):
        for x_t in x:
            s = torch.cat(cell(x_t, *s.split(list(cell.state_sizes))))
        return s

    start = torch.cat([s[0] for s in states])
    expected = torch.autograd.functional.jacobian(run, start)
    found = step_jacobians(cell, x, states)
    torch.testing.assert_close(product(found), expected, rtol=1e-10, atol=1e-12)
    lags, values = singular_values(found)
    assert lags[-1] == steps
    torch.testing.assert_close(values[-1], torch.linalg.svdvals(expected), rtol=1e-6, atol=1e-12)


def test_singular_values_begin_at_the_end():
    jacobians = torch.randn(7, 3, 3, **F64)
    lags, values = singular_values(jacobians)
    assert lags == [1, 2, 3, 4, 6, 7]
    for lag, row in zip(lags, values, strict=True):
        torch.testing.assert_close(row, torch.linalg.svdvals(product(jacobians[7 - lag :])))


def test_beyond_the_range_of_float64():
    _, values = singular_values(torch.full((40, 2, 2), 1e10, **F64))
    assert values[-1].tolist() == [torch.inf, torch.inf]
    assert lyapunov_exponents(torch.full((40, 1, 1), 1e10, **F64)).item() == pytest.approx(
        10 * math.log(10)
    )


@given(st.integers(0, 99))
def test_lyapunov_exponents_of_a_linear_recurrence(seed):
    torch.manual_seed(seed)
    eigenvalues = torch.tensor([1.6, -1.1, 0.7, -0.4], **F64)
    basis = torch.linalg.qr(torch.randn(4, 4, **F64)).Q + 0.1 * torch.randn(4, 4, **F64)
    u = basis @ eigenvalues.diag() @ basis.inverse()
    found = lyapunov_exponents(u.expand(160, 4, 4), discard=80)
    torch.testing.assert_close(found, eigenvalues.abs().log(), rtol=1e-8, atol=1e-8)
    # A rotation: a pair of complex eigenvalues, of which only the size counts.
    angle = torch.tensor(0.7, **F64)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    found = lyapunov_exponents((0.9 * turn).expand(30, 2, 2))
    torch.testing.assert_close(found, torch.tensor([0.9, 0.9], **F64).log())


def test_discard_must_leave_a_step():
    with pytest.raises(InputError, match="discard must lie between 0 and 2"):
        lyapunov_exponents(torch.ones(3, 1, 1), discard=3)
