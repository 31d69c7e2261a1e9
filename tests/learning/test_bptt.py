from __future__ import annotations

import pytest
import torch

import elman
from elman.learning import BPTT, TruncatedBPTT, detach


@pytest.fixture
def network():
    torch.manual_seed(0)
    return elman.RNN(3, 4, dtype=torch.float64)


def _loss(network):
    def loss(x, state):
        y, state = network(x, state)
        return y.square().sum(), state

    return loss


def _gradients(network):
    gradients = {n: p.grad.clone() for n, p in network.named_parameters()}
    network.zero_grad()
    return gradients


def test_bptt_is_the_textbooks_sum_over_pairs_of_steps(network):
    # δ_{t,k} = ∂L_t/∂z_k and ∂L/∂U = Σ_t Σ_{k ≤ t} δ_{t,k} h_{k−1}ᵀ, written out.
    x = torch.randn(5, 1, 3, dtype=torch.float64)
    BPTT(_loss(network)).gradients(x)
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


def test_truncation_carries_the_state_and_stops_the_gradient(network):
    first, second = torch.randn(2, 6, 2, 3, dtype=torch.float64)
    rule = TruncatedBPTT(_loss(network))
    rule.gradients(first)
    network.zero_grad()
    loss = rule.gradients(second)
    got = _gradients(network)
    _, state = network(first)
    y, _ = network(second, state.detach())
    assert torch.equal(loss, y.square().sum().detach())
    y.square().sum().backward()
    for name, gradient in _gradients(network).items():
        assert torch.allclose(got[name], gradient, atol=1e-12), name
    # With the gradient let through, the result is another one: the test can tell the two apart.
    y, _ = network(second, network(first)[1])
    y.square().sum().backward()
    assert not torch.allclose(got["weight_hh_l0"], network.weight_hh_l0.grad, atol=1e-6)


def test_whole_sequences_start_anew(network):
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    rule = BPTT(_loss(network))
    assert torch.equal(rule.gradients(x), rule.gradients(x))


def test_detach_keeps_the_structure():
    h = torch.ones(2, requires_grad=True) * 2
    state = (h, (h, h))
    new = detach(state)
    assert isinstance(new[1], tuple)
    assert not any(t.requires_grad for t in (new[0], *new[1]))
    assert detach(None) is None
