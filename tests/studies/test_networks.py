"""How cells start so that they remember for long."""

from __future__ import annotations

import torch

from elman.studies.networks import make_cell


def test_gates_start_for_long_memories():
    cell = make_cell("lstm", 2, 500, memory=100)
    blocks = dict(zip("ifgo", cell.get_parameter("bias_ih").view(4, -1), strict=True))
    assert torch.equal(blocks["i"], -blocks["f"])
    assert blocks["f"].min() >= 0 and 99 * 0.9 < blocks["f"].exp().max() <= 99.01
    ring = make_cell("lru", 10, 128, memory=100)
    nu = ring.get_parameter("weight_decay").view(3, -1)[0]
    radius = torch.exp(-torch.exp(nu))
    assert (radius >= 0.9899).all() and (radius <= 1).all()
    gru = make_cell("gru", 4, 10, forget_bias=6.0)
    assert (gru.get_parameter("bias_ih").view(3, -1)[1] == 6).all()
    make_cell("rnn", 4, 10, memory=100, forget_bias=20.0)  # has no gate: nothing to set
