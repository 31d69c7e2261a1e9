"""Dynamical systems to predict, as endless streams."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from elman.errors import InputError


def mackey_glass(
    tau: float = 17.0,
    *,
    beta: float = 0.2,
    gamma: float = 0.1,
    power: float = 10.0,
    start: float = 1.2,
    interval: float = 1.0,
    substeps: int = 10,
) -> Iterator[np.ndarray]:
    """Integrate the Mackey–Glass equation (Mackey & Glass, 1977), without end.

    dx/dt = β x(t − τ) / (1 + x(t − τ)ⁿ) − γ x(t),    x(t) = x₀ for t ≤ 0.

    With β = 0.2, γ = 0.1, n = 10 the motion is chaotic for τ > 16.8; τ = 17 is what most papers
    predict, τ = 30 is harder. Its values lie between about 0.2 and 1.4.

    Fourth order in the step h = interval / substeps: Runge and Kutta's method, with the delayed
    value in the middle of a step from a cubic Hermite polynomial. Over one delay the right-hand
    side is known from what came before, so that a block of τ / h steps is a linear recurrence,
    computed at once: 10⁶ values take a few seconds.

    Args:
        tau: the delay τ, in units of time; a multiple of h.
        beta, gamma, power: β and γ per unit of time, and n.
        start: x₀.
        interval: the time between two values.
        substeps: steps for each value.

    Yields:
        the values that follow t = 0, float64, in blocks of one delay or so.

    Raises:
        InputError: an argument is not positive, or the delay is no multiple of the step.
    """
    for name, value in (("tau", tau), ("interval", interval), ("substeps", substeps)):
        if not value > 0:
            raise InputError(f"{name} must be positive, received {value!r}.")
    h = interval / substeps
    delay = round(tau / h)
    if delay < 1 or abs(delay * h - tau) > 1e-9 * tau:
        raise InputError(
            f"tau must be a multiple of the step, interval / substeps = {h:g}, received {tau!r}."
        )
    return _blocks(delay, h, beta, gamma, power, start, substeps)


def _blocks(
    delay: int, h: float, beta: float, gamma: float, power: float, start: float, substeps: int
) -> Iterator[np.ndarray]:
    # x' = −γ x + g(t): a step of the method multiplies x by `decay` and adds a sum of g at the
    # step's start, middle and end.
    d = gamma * h
    decay = 1 - d + d**2 / 2 - d**3 / 6 + d**4 / 24
    first = h / 6 * (1 - d + d**2 / 2 - d**3 / 4)
    middle = h / 6 * (4 - 2 * d + d**2 / 2)
    last = h / 6
    powers = decay ** np.arange(1, delay + 1)
    x, slope = np.full(delay + 1, float(start)), np.zeros(delay + 1)
    done = 0
    while True:
        half = (x[:-1] + x[1:]) / 2 + h / 8 * (slope[:-1] - slope[1:])
        g, g_half = (beta * v / (1 + v**power) for v in (x, half))
        added = first * g[:-1] + middle * g_half + last * g[1:]
        new = powers * (x[-1] + np.cumsum(added / powers))
        x = np.concatenate([x[-1:], new])
        slope = g - gamma * x
        yield new[-(done + 1) % substeps :: substeps]
        done += delay


def lorenz(
    steps: int,
    *,
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8 / 3,
    start: tuple[float, float, float] = (1.0, 1.0, 1.0),
    interval: float = 0.02,
    substeps: int = 10,
) -> np.ndarray:
    """Integrate the Lorenz equations (Lorenz, 1963).

    dx/dt = σ (y − x)    dy/dt = x (ρ − z) − y    dz/dt = x y − β z

    With these parameters the motion is chaotic: its largest Lyapunov exponent is 0.906 per unit of
    time, so that a small error grows e-fold in 1.10 units. Fourth order, by Runge and Kutta's
    method, in the step interval / substeps.

    Args:
        steps: how many values.
        sigma, rho, beta: σ, ρ and β.
        start: (x, y, z) at t = 0. The first 20 units of time or so are still on the way to the
            attractor.
        interval: the time between two values.
        substeps: steps of the method for each value.

    Returns:
        (steps, 3), float64: the values that follow t = 0.

    Raises:
        InputError: interval or substeps is not positive.
    """
    for name, value in (("interval", interval), ("substeps", substeps)):
        if not value > 0:
            raise InputError(f"{name} must be positive, received {value!r}.")
    h = interval / substeps

    def slope(x: float, y: float, z: float) -> tuple[float, float, float]:
        return sigma * (y - x), x * (rho - z) - y, x * y - beta * z

    values = np.empty((steps, 3))
    x, y, z = start
    for k in range(steps):
        for _ in range(substeps):
            a = slope(x, y, z)
            b = slope(x + h / 2 * a[0], y + h / 2 * a[1], z + h / 2 * a[2])
            c = slope(x + h / 2 * b[0], y + h / 2 * b[1], z + h / 2 * b[2])
            d = slope(x + h * c[0], y + h * c[1], z + h * c[2])
            x += h / 6 * (a[0] + 2 * b[0] + 2 * c[0] + d[0])
            y += h / 6 * (a[1] + 2 * b[1] + 2 * c[1] + d[1])
            z += h / 6 * (a[2] + 2 * b[2] + 2 * c[2] + d[2])
        values[k] = x, y, z
    return values
