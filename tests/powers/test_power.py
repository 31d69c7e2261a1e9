from __future__ import annotations

import pytest
import torch

from elman.powers import POWERS
from elman.powers.power import Learning

TYPES = [(torch.float64, torch.float64), (torch.float32, torch.float64)]
"""PyTorch's default and the weights'."""
DRAWN = [
    name
    for name, kind in POWERS.items()
    if issubclass(kind, Learning) and name not in ("pixel-mnist", "dynamics")
]


@pytest.mark.parametrize(("standard", "dtype"), TYPES)
@pytest.mark.parametrize("name", DRAWN)
def test_a_study_in_the_weights_type(name, standard, dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(standard)
    try:
        study = POWERS[name](POWERS[name].Settings())
        network = study.make().to(dtype)
        study.loss(network, study.batch(torch.Generator().manual_seed(0), 3, 12)).backward()
    finally:
        torch.set_default_dtype(before)
    for parameter in network.parameters():
        if parameter.grad is not None:
            assert parameter.grad.dtype == dtype and parameter.grad.isfinite().all()
