"""Links past a layer."""

from __future__ import annotations

import torch

import elman
from elman import cells


def test_residual_and_highway_links(kind, agree):
    """By hand, from one network a layer."""
    for skip in ("residual", "highway"):
        rnn = elman.Recurrent(kind(3, 4), 3, skip=skip)
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        y = x
        for layer, cell in enumerate(rnn.cells):
            single = elman.Recurrent(kind(cell.input_size, 4))
            single.load_state_dict({f"{n}_l0": p for n, p in rnn.weights(layer).items()})
            inner = single(y)[0]
            if inner.shape != y.shape:
                y = inner
            elif skip == "residual":
                y = y + inner
            else:
                w, b = (getattr(rnn, f"{n}_highway_l{layer}") for n in ("weight", "bias"))
                t = torch.sigmoid(y @ w.T + b)
                y = t * inner + (1 - t) * y
        agree(rnn(x)[0], y)


def test_a_new_highway_mostly_carries(kinds):
    rnn = elman.Recurrent(kinds["lstm"](4, 4), skip="highway")
    assert torch.equal(rnn.bias_highway_l0, torch.full_like(rnn.bias_highway_l0, -1.0))


def unexplained(skip: str | None) -> float:
    """The share that 20 layers without recurrence leave of a linear map after 50 updates."""
    torch.manual_seed(0)
    network = elman.Recurrent(cells.Perceptron(8, 8), layers=20, skip=skip)
    x = torch.randn(1, 64, 8)
    target = 0.5 * x.flip(-1)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(50):
        loss = (network(x)[0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach() / target.var())


def test_deep_stacks_without_recurrence_need_links():
    assert unexplained(None) > 0.85
    assert unexplained("highway") < 0.7
    assert unexplained("residual") < 0.7
