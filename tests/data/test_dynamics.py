from __future__ import annotations

import itertools

import numpy as np
import pytest

from elman import InputError
from elman.data.dynamics import mackey_glass


def _values(count, **options):
    blocks = mackey_glass(**options)
    found = np.concatenate(list(itertools.islice(blocks, 2 + count // 16)))
    return found[:count]


def test_over_the_first_delay_it_is_the_solution_in_closed_form():
    # x(t − τ) is constant there: x(t) = k/γ + (x₀ − k/γ) e^{−γ t} with k = β x₀ / (1 + x₀ⁿ).
    t, k = np.arange(1, 18), 0.2 * 0.5 / (1 + 0.5**10)
    exact = k / 0.1 + (0.5 - k / 0.1) * np.exp(-0.1 * t)
    assert np.abs(_values(17, start=0.5) - exact).max() < 1e-9


def test_a_plain_runge_kutta_of_tiny_steps_agrees():
    h, delay = 0.01, 1700
    x = [1.2] * (delay + 1)
    for _ in range(6000):
        held = [x[-1 - delay], (x[-1 - delay] + x[-delay]) / 2, x[-delay]]
        a, b, c = (0.2 * v / (1 + v**10) for v in held)
        k1 = a - 0.1 * x[-1]
        k2 = b - 0.1 * (x[-1] + h / 2 * k1)
        k3 = b - 0.1 * (x[-1] + h / 2 * k2)
        k4 = c - 0.1 * (x[-1] + h * k3)
        x.append(x[-1] + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    assert np.abs(_values(60) - x[delay + 100 :: 100]).max() < 1e-6


def test_the_error_falls_with_the_fourth_power_of_the_step():
    fine = _values(60, substeps=160)
    coarse, half = (np.abs(_values(60, substeps=n) - fine).max() for n in (4, 8))
    assert 12 < coarse / half < 20


@pytest.mark.parametrize("substeps", [1, 3, 10])
def test_values_come_at_equal_intervals_across_blocks(substeps):
    # A delay of 17 · 3 steps, in blocks that no interval divides, against one that it does.
    assert np.allclose(_values(40, substeps=substeps), _values(40, substeps=160), atol=1e-4)
    twice = _values(20, interval=2.0, substeps=2 * 10)
    assert np.allclose(twice, _values(40)[1::2], atol=1e-12)


def test_it_stays_on_its_attractor_and_does_not_repeat():
    values = _values(20_000)[1000:]
    assert 0.2 < values.min() < 0.5
    assert 1.2 < values.max() < 1.5
    assert np.unique(values.round(9)).size > 18_000


def test_what_cannot_be_integrated_is_said():
    with pytest.raises(InputError, match=r"a multiple of the step.*0\.1, received 0\.25"):
        mackey_glass(0.25)
    with pytest.raises(InputError, match="interval must be positive, received 0"):
        mackey_glass(interval=0)
