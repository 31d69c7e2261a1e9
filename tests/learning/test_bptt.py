from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import elman
from elman import Recurrent
from elman.learning import BPTT, RTRL, TruncatedBPTT, detach


@pytest.fixture
def network():
    torch.manual_seed(0)
    return elman.RNN(3, 4, dtype=torch.float64)


def _loss(y, target):
    """A weight of its own for every output: under a plain sum, exchanged steps would not show."""
    return (y * target).sum() + y.square().sum()


def _gradients(network):
    gradients = {n: p.grad.clone() for n, p in network.named_parameters()}
    network.zero_grad()
    return gradients


def _window(steps, batch=2):
    x = torch.randn(steps, batch, 3, dtype=torch.float64)
    return x, torch.randn(steps, batch, 4, dtype=torch.float64)


def test_bptt_is_the_textbooks_sum_over_pairs_of_steps(network):
    # δ_{t,k} = ∂L_t/∂z_k and ∂L/∂U = Σ_t Σ_{k ≤ t} δ_{t,k} h_{k−1}ᵀ, written out.
    x = torch.randn(5, 1, 3, dtype=torch.float64)
    BPTT(network, _loss).gradients(x, torch.zeros(5, 1, 4, dtype=torch.float64))
    got = _gradients(network)
    u = network.weight_hh_l0.detach()
    with torch.no_grad():
        h = network(x)[0][:, 0]
    before = torch.cat([torch.zeros(1, 4, dtype=torch.float64), h[:-1]])
    for_u, for_w = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64)
    for t in range(5):
        delta = 2 * h[t] * (1 - h[t] ** 2)
        for k in range(t, -1, -1):
            for_u += delta[:, None] * before[k]
            for_w += delta[:, None] * x[k, 0]
            if k:
                delta = (u.T @ delta) * (1 - h[k - 1] ** 2)
    assert torch.allclose(got["weight_hh_l0"], for_u, atol=1e-12)
    assert torch.allclose(got["weight_ih_l0"], for_w, atol=1e-12)


def _reached(network, x, target, resets, start, end, reach):
    """∂/∂θ of the losses of steps start … end − 1, cut off ``reach`` steps before the end."""
    cut = max(0, end - reach)
    with torch.no_grad():
        early, state = x.new_empty(0, *target.shape[1:]), None
        if cut:
            early, state = network(x[:cut], resets=resets[:cut])
    late, _ = network(x[cut:end], state, resets=resets[cut:end])
    _loss(torch.cat([early, late])[start:end], target[start:end]).backward()
    return _gradients(network)


@given(
    k1=st.integers(1, 5),
    k2=st.integers(1, 9),
    windows=st.integers(1, 4),
    often=st.sampled_from((0, 0.3)),
)
def test_each_window_reaches_k2_steps_back(k1, k2, windows, often):
    network = elman.LSTM(3, 4, 2, dtype=torch.float64)
    x, target = _window(k1 * windows)
    resets = torch.rand(x.shape[:2]) < often
    rule = TruncatedBPTT(network, _loss, reach=k2)
    for start in range(0, len(x), k1):
        end = start + k1
        here = resets[start:end]
        given = here if here.any() else None  # none in one window, some in another
        loss = rule.gradients(x[start:end], target[start:end], resets=given)
        got = _gradients(network)
        expected = _reached(network, x, target, resets, start, end, k2)
        y, state = network(x[:end], resets=resets[:end])
        assert torch.allclose(loss, _loss(y[start:], target[start:end]))
        for a, b in zip(rule.state, state, strict=True):
            assert torch.allclose(a, b, atol=1e-12)
        for name in expected:
            assert torch.allclose(got[name], expected[name], atol=1e-12), name


def test_without_a_reach_it_is_the_window(network):
    first, second = _window(6), _window(6)
    rules = [TruncatedBPTT(network, _loss), TruncatedBPTT(network, _loss, reach=6)]
    got = []
    for rule in rules:
        rule.gradients(*first)
        network.zero_grad()
        rule.gradients(*second)
        got.append(_gradients(network))
    for name in got[0]:
        assert torch.equal(got[0][name], got[1][name]), name
    # With the gradient let through, the result is another one: the test can tell the two apart.
    x, target = (torch.cat(pair) for pair in zip(first, second, strict=True))
    _loss(network(x)[0][6:], target[6:]).backward()
    assert not torch.allclose(got[0]["weight_hh_l0"], network.weight_hh_l0.grad, atol=1e-6)


@pytest.mark.parametrize("reach", [None, 9])
def test_a_reset_begins_a_new_stream(network, reach):
    rule, (x, target) = TruncatedBPTT(network, _loss, reach), _window(4)
    first = rule.gradients(x, target)
    alone = _gradients(network)
    assert rule.gradients(x, target) != first
    network.zero_grad()
    rule.reset()
    assert rule.gradients(x, target) == first
    for name, gradient in _gradients(network).items():
        assert torch.equal(gradient, alone[name]), name


def test_whole_sequences_start_anew(network):
    rule, window = BPTT(network, _loss), _window(6)
    assert torch.equal(rule.gradients(*window), rule.gradients(*window))


def test_what_truncation_cannot_do_is_said():
    with pytest.raises(elman.InputError, match="reach must be a positive number of steps"):
        TruncatedBPTT(elman.RNN(3, 4), _loss, reach=0)
    with pytest.raises(elman.InputError, match="bidirectional network reads the future"):
        TruncatedBPTT(elman.RNN(3, 4, bidirectional=True), _loss)
    with pytest.raises(elman.InputError, match="time first"):
        TruncatedBPTT(elman.RNN(3, 4, batch_first=True), _loss)
    with pytest.raises(elman.InputError, match=r"elman\.Recurrent.*received LSTM"):
        BPTT(torch.nn.LSTM(3, 4), _loss)


def test_losses_and_rows_that_do_not_fit_are_refused():
    for rule in (BPTT, TruncatedBPTT, RTRL):
        with pytest.raises(elman.InputError, match=r"loss must be a scalar, received \(5, 2, 4\)"):
            rule(elman.RNN(3, 4), lambda y, _: y).gradients(torch.zeros(5, 2, 3), None)
        with pytest.raises(elman.InputError, match="loss must be a scalar, received float"):
            rule(elman.RNN(3, 4), lambda y, _: 1.0).gradients(torch.zeros(5, 2, 3), None)
    for network in (elman.LSTM(3, 4), Recurrent(elman.cells.LSTM(3, 4), hidden_sizes=[4, 2])):
        rule = TruncatedBPTT(network, lambda y, _: y.sum(), reach=7)
        rule.gradients(torch.zeros(5, 2, 3), None)
        with pytest.raises(elman.InputError, match="had 2 rows and this window has 3"):
            rule.gradients(torch.zeros(5, 3, 3), None)
        rule.reset()
        rule.gradients(torch.zeros(5, 3, 3), None)


def test_whole_sequences_have_lengths(network):
    (x, target), rule = _window(6), BPTT(network, lambda y, t: (y * t).sum())
    rule.gradients(x, target, lengths=[2, 6])
    padded = _gradients(network)
    for row, end in enumerate((2, 6)):
        rule.gradients(x[:end, row : row + 1], target[:end, row : row + 1])
    for name, gradient in _gradients(network).items():
        assert torch.allclose(gradient, padded[name], atol=1e-12), name


@pytest.mark.parametrize("kind", [TruncatedBPTT, RTRL])
def test_streams_have_no_lengths(network, kind):
    x, target = _window(4)
    with pytest.raises(elman.InputError, match=f"{kind.__name__} reads streams.*by resets"):
        kind(network, _loss).gradients(x, target, lengths=[2, 4])
    with pytest.raises(elman.InputError, match=r"resets must be bool of shape \(4, 2\)"):
        kind(network, _loss).gradients(x, target, resets=torch.zeros(4, 3, dtype=torch.bool))


def test_detach_keeps_the_structure():
    h = torch.ones(2, requires_grad=True) * 2
    state = (h, (h, h))
    new = detach(state)
    assert isinstance(new[1], tuple)
    assert not any(t.requires_grad for t in (new[0], *new[1]))
    assert detach(None) is None
