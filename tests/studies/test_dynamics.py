"""Chaos, predicted freely."""

from __future__ import annotations

import pytest
import torch

from elman.studies.dynamics import WARM, Dynamics
from elman.training.report import Report


@pytest.mark.parametrize("system", ["mackey-glass", "lorenz"])
def test_dynamics_beside_its_baselines(system, tmp_path, monkeypatch):
    monkeypatch.setattr("elman.studies.dynamics.TRAINED", 3000)
    monkeypatch.setattr("elman.studies.dynamics.STARTS", 4)
    settings = Dynamics.Settings(
        system=system, hidden=8, updates=4, every=2, batch=2, length=30, reservoir=400, order=20,
        seeds=1,
    )  # fmt: skip
    study = Dynamics(settings)
    with Report() as report:
        outcome = study.run(report)
    errors = {row["model"]: row[f"error at {study.horizons[0]}"] for row in outcome.rows}
    assert errors["echo state"] < errors["linear"] < 5
    assert errors["echo state"] < 0.3
    # The read-out is the best for the trained states: what it leaves is orthogonal to them.
    network = study._fitted(study.network)
    wanted = (study.train[1:] - study.train[:-1]) / study.step
    with torch.no_grad():
        states = network.recurrent(study.train[:-1])[0]
        left = (network.readout(states) - wanted)[WARM:]
    assert float((states[WARM:].t() @ left).abs().max()) < 1e-6 * len(left)
    study.draw(outcome, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
