"""What the tests of learning rules share."""

from __future__ import annotations

import pytest
import torch

DOUBLE = {"dtype": torch.float64}


@pytest.fixture(scope="session")
def loss():
    """A weight of its own for every output: under a plain sum, exchanged steps would not show."""

    def compute(y, target):
        return (y * target).sum() + y.square().sum()

    return compute


@pytest.fixture(scope="session")
def window():
    """A window of random inputs and targets for a network."""

    def compute(network, steps, batch=2):
        x = torch.randn(steps, batch, network.input_size, **DOUBLE)
        return x, torch.randn(steps, batch, network.output_size, **DOUBLE)

    return compute


@pytest.fixture(scope="session")
def by_rule():
    """What a rule gives for a stream that comes in the windows between ``cuts``."""

    def compute(network, rule, x, target, *cuts):
        network.zero_grad()
        for start, end in zip((0, *cuts), (*cuts, len(x)), strict=True):
            rule.gradients(x[start:end], target[start:end])
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in network.named_parameters()
        }

    return compute


@pytest.fixture(scope="session")
def flat():
    """Gradients by name as one vector."""

    def compute(gradients):
        return torch.cat([g.flatten() for g in gradients.values()])

    return compute
