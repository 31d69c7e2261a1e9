"""Softmax as a whole, in clusters and by samples: that each is a distribution, and learns one."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn.functional import log_softmax

from elman.errors import InputError
from elman.layers.softmax import AdaptiveSoftmax, FullSoftmax, SampledSoftmax

LAYERS = {
    "full": lambda: FullSoftmax(16, 30),
    "adaptive": lambda: AdaptiveSoftmax(16, 30),
    "cut once": lambda: AdaptiveSoftmax(16, 30, [7]),
    "sampled": lambda: SampledSoftmax(16, 30, 9),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_what_is_measured_is_the_distribution_that_logits_give(make):
    layer = make().double().eval()
    h, targets = torch.randn(40, 16, dtype=torch.float64), torch.randint(30, (40,))
    logits = layer(h)
    expected = -log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(layer.nats(h, targets), expected, rtol=1e-12, atol=1e-12)
    # Whatever stands before: a sequence of batches, or one vector.
    for some, shape in ((logits, (5, 8, 30)), (logits[0], (30,))):
        given = h.view(5, 8, 16) if len(shape) > 1 else h[0]
        torch.testing.assert_close(layer(given), some.view(shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_what_the_sampled_softmax_learns_is_the_distribution(count):
    """At s = log P + c no weight's gradient is left, over all targets and draws of candidates."""
    size = 4
    layer = SampledSoftmax(1, size, count).double()
    wanted = torch.tensor([0.1, 0.5, 0.15, 0.25], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(wanted.log() + 3)
    h, targets = torch.ones(size, 1, dtype=torch.float64), torch.arange(size)

    def gradient():
        mean, every = 0, 0
        for drawn in product(range(size), repeat=count):
            p = layer.probabilities(torch.tensor(drawn)).prod()
            mean = mean + p * (wanted * layer.among(h, targets, torch.tensor(drawn))).sum()
            every = every + p
        assert float(every) == pytest.approx(1, abs=1e-12)
        return torch.autograd.grad(mean, layer.bias)[0]

    assert gradient().abs().max() < 1e-12
    with torch.no_grad():
        layer.bias[1] += 0.1
    assert gradient()[1] > 1e-3


def test_candidates_are_drawn_as_they_are_counted(monkeypatch):
    size = 50
    layer, drawn = SampledSoftmax(4, size, 49).train(), []
    monkeypatch.setattr(layer, "among", lambda h, t, ids: drawn.append(ids))
    for _ in range(400):
        layer.nats(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long))
    ids = torch.cat(drawn)
    p = layer.probabilities(torch.arange(size))
    found = ids.bincount(minlength=size) / len(ids)
    assert ((found - p).abs() < 5 * (p * (1 - p) / len(ids)).sqrt()).all()


def test_gradients_of_the_sampled_and_the_adaptive_reach_every_weight():
    for make in LAYERS.values():
        layer = make().double().train()
        h = torch.randn(300, 16, dtype=torch.float64, requires_grad=True)
        layer.nats(h, torch.randint(30, (300,))).mean().backward()
        assert all(w.grad.abs().sum() > 0 for w in (*layer.parameters(), h))


def test_the_adaptive_softmax_under_autocast():
    layer, h = AdaptiveSoftmax(16, 30), torch.randn(40, 16)
    expected = layer.nats(h, torch.arange(40) % 30)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer.nats(h, torch.arange(40) % 30), expected)
        assert layer(h).dtype == torch.float32


@pytest.mark.parametrize("cuts", [[9, 4], [4, 4], [30], [0, 4]])
def test_cutoffs_that_cannot_be(cuts):
    with pytest.raises(InputError, match=r"`cutoffs` must ascend between 1 and 29, .* received"):
        AdaptiveSoftmax(16, 30, cuts)


def test_sizes_that_cannot_be():
    with pytest.raises(InputError, match="draws 30 candidates from 30 tokens: lower `softmax_s"):
        SampledSoftmax(16, 30, 30)
    with pytest.raises(InputError, match="of 15 numbers nothing is left: widen the network"):
        AdaptiveSoftmax(15, 30)
