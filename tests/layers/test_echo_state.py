"""The echo-state network: its recurrence is drawn, its read-out fitted."""

from __future__ import annotations

import pytest
import torch

from elman.errors import InputError
from elman.layers import EchoState
from elman.layers.echo_state import free_run


def test_echo_state_has_its_radius_and_fits_a_wave():
    torch.manual_seed(0)
    wave = torch.sin(0.2 * torch.arange(1200, dtype=torch.float64)).view(-1, 1, 1)
    echo = EchoState(1, 100, radius=0.8).fit(wave[:1000, 0])
    largest = (
        torch.linalg.eigvals(echo.recurrent.get_parameter("weight_hh_l0").detach()).abs().max()
    )
    assert float(largest) == pytest.approx(0.8, rel=1e-6)
    ahead = free_run(echo.recurrent, echo.readout, wave[900:1000], 100)
    assert float((ahead - wave[1000:1100]).abs().max()) < 1e-3
    with pytest.raises(InputError, match="radius must be positive"):
        EchoState(1, radius=0.0)
