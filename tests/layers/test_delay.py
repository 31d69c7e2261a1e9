"""Autoregression: linear by least squares and by gradient, and by a network."""

from __future__ import annotations

import math

import pytest
import torch

import elman

F64 = {"dtype": torch.float64}


def oscillation(steps: int, batch: int, noise: float) -> torch.Tensor:
    """y_t = 0.5 + 1.2 y_{t−1} − 0.6 y_{t−2} + ε: stable, oscillating, with mean 1.25."""
    y = torch.full((steps, batch, 1), 1.25, **F64)
    for t in range(2, steps):
        y[t] = 0.5 + 1.2 * y[t - 1] - 0.6 * y[t - 2] + noise * torch.randn(batch, 1, **F64)
    return y


# -- linear -------------------------------------------------------------------------------------


def test_least_squares_finds_the_law():
    model = elman.AR(2, **F64).fit(oscillation(4000, 3, 0.1))
    torch.testing.assert_close(
        model.weight, torch.tensor([[-0.6, 1.2]], **F64), rtol=0, atol=0.02, check_dtype=False
    )
    assert abs(model.bias.item() - 0.5) < 0.03
    assert abs(model.noise.item() - 0.1) < 0.003


def test_least_squares_is_exact_without_noise(agree):
    """Two values wide, each a function of both: a rotation that shrinks."""
    turn = 0.95 * torch.tensor([[0.8, -0.6], [0.6, 0.8]], **F64)
    y = [torch.randn(3, 2, **F64)]
    for _ in range(20):
        y.append(y[-1] @ turn.T)
    series = torch.stack(y)
    model = elman.AR(1, 2, **F64).fit(series[:10])
    agree(model.weight, turn, 1e-9)
    agree(model.forecast(series[:10], 11), series[10:], 1e-9)
    agree(model(series), series[1:], 1e-9)


def test_gradient_finds_what_least_squares_finds():
    series = oscillation(300, 2, 0.1)
    exact, model = elman.AR(3, **F64).fit(series), elman.AR(3, **F64)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        error = (model(series) - series[3:]).square().mean()
        error.backward()
        return error

    optimizer.step(loss)
    for a, b in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)


def test_forecasts_feed_on_forecasts():
    series = oscillation(50, 2, 0.1)
    model = elman.AR(2, **F64).fit(series)
    first = model.forecast(series, 1)
    torch.testing.assert_close(
        model.forecast(series, 3)[1:], model.forecast(torch.cat([series, first]), 2)
    )
    torch.testing.assert_close(model(series)[-1], model.forecast(series[:-1], 1)[0])
    assert model.forecast(series, 0).shape == (0, 2, 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: elman.AR(0), ["order", "positive integer", "0"]),
        (lambda: elman.AR(2)(torch.zeros(2, 1)), ["(T, …, 1)", "at least 3", "(2, 1)"]),
        (lambda: elman.AR(2).fit(torch.zeros(9, 3, 2)), ["(T, …, 1)", "(9, 3, 2)"]),
        (
            lambda: elman.AR(2).fit(torch.tensor([[1.0], [math.nan], [2.0], [math.inf], [0.0]])),
            ["finite", "2 of 5 values"],
        ),
        (lambda: elman.AR(2).forecast(torch.zeros(1, 1), 2), ["at least 2", "(1, 1)"]),
    ],
)
def test_bad_series(call, words):
    with pytest.raises(elman.InputError) as error:
        call()
    for word in words:
        assert word in str(error.value)


# -- with external input --------------------------------------------------------------------------


def test_teacher_forcing_on_its_own_outputs_is_running_freely(agree, gradients):
    net = elman.NARX(3, 5, 2, input_delays=3, output_delays=4, **F64)
    x = torch.randn(9, 2, 3, **F64, requires_grad=True)
    state = [torch.randn(s.shape, **F64) for s in net.initial_state(2)]
    # The windows hold y; the state y itself is the newest of them.
    state[0] = state[2][..., -2:]
    free, last = net(x, tuple(state))
    forced, forced_last = net(x, tuple(state), targets=free)
    agree((forced, forced_last), (free, last))
    # In two pieces, the second running freely from where the true outputs end.
    first, middle = net(x[:4], tuple(state), targets=free[:4].detach())
    agree(net(x[4:], middle)[0], free[4:])
    agree(first, free[:4])


def test_true_outputs_are_what_it_sees(agree):
    """Under teacher forcing an output depends on the targets before it, not on that at its step."""
    net = elman.NARX(1, 4, 1, output_delays=2, **F64)
    x = torch.randn(6, 1, 1, **F64)
    targets = torch.randn(6, 1, 1, **F64, requires_grad=True)
    y, _ = net(x, targets=targets)
    for t in range(6):
        (found,) = torch.autograd.grad(y[t].sum(), targets, retain_graph=True, allow_unused=True)
        seen = found.flatten().nonzero().flatten().tolist() if t else []
        assert seen == [k for k in (t - 2, t - 1) if k >= 0]


def test_it_learns_a_system_and_runs_it_freely():
    """A driven non-linear system: trained on the true outputs, it follows from the input alone."""
    torch.manual_seed(0)
    x, y = torch.rand(400, 4, 1) - 0.5, [torch.zeros(4, 1)] * 2
    for u in x:
        y.append(0.6 * y[-1] - 0.2 * y[-2] + torch.tanh(2 * u) * (1 - 0.5 * y[-1]))
    y = torch.stack(y[2:])
    net = elman.NARX(1, 12, 1)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(250):
        loss = (net(x[:300], targets=y[:300])[0] - y[:300]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        _, state = net(x[:300], targets=y[:300])
        free, _ = net(x[300:], state)
        error = (free - y[300:]).square().mean() / y[300:].var()
        stepped = []
        for u in x[300:]:
            out, state = net.step(u, state)
            stepped.append(out)
    assert error < 0.01
    torch.testing.assert_close(torch.stack(stepped), free, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda net, x: net(x, targets=torch.zeros(5, 2, 3)),
            ["(T, B, 1)", "(T, B, 2)", "(5, 2, 3)"],
        ),
        (lambda net, x: net(x[:, 0], targets=torch.zeros(5, 2)), ["(T, B, 1)", "(5, 1)"]),
        (
            lambda net, x: net(x, targets=torch.zeros(5, 2, 2), lengths=[1, 2]),
            ["lengths", "targets", "leave one"],
        ),
    ],
)
def test_bad_calls(call, words):
    with pytest.raises(elman.InputError) as error:
        call(elman.NARX(1, 3, 2), torch.zeros(5, 2, 1))
    for word in words:
        assert word in str(error.value)
