"""A function, approximated by layers of growing width."""

from __future__ import annotations

import torch

from elman.studies.function_approximation import FUNCTIONS, fit


def test_wider_layers_approximate_better():
    x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    y = FUNCTIONS["wave"](x)
    narrow, wide = (float((fit(x, y, n, 60, 0)(x).detach() - y).square().mean()) for n in (1, 12))
    assert wide < 1e-3 < 0.1 < narrow
