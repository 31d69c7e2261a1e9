"""Chaos, predicted freely."""

from __future__ import annotations

import pytest
import torch

from elman.studies.dynamics import WARM, Dynamics
from elman.studies.series import train_all
from elman.training.opening import restore
from elman.training.run import Run


@pytest.mark.parametrize("system", ["mackey-glass", "lorenz"])
def test_dynamics_beside_its_baselines(system, tmp_path, monkeypatch):
    monkeypatch.setattr("elman.studies.dynamics.TRAINED", 3000)
    monkeypatch.setattr("elman.studies.dynamics.STARTS", 4)
    settings = Dynamics.Settings(
        system=system, hidden=8, updates=4, every=2, batch=2, length=30, reservoir=400, order=20,
    )  # fmt: skip
    folder = tmp_path / "study"
    found = train_all(Dynamics, settings, [0], folder)
    study = restore({"dynamics": Dynamics}, Run.open(folder / "seed-0"))
    study.model.load_state_dict(Run.open(folder / "seed-0").load_model())
    assert [row["model"] for row in found["rows"]] == ["gru", "echo state", "linear"]
    errors = {row["model"]: row[f"error at {study.horizons[0]}"] for row in found["rows"]}
    assert errors["echo state"] < errors["linear"] < 5
    assert errors["echo state"] < 0.3
    assert errors["gru"] == pytest.approx(study.evaluate()["normalised_error"], rel=1e-12)
    # The read-out is the best for the trained states: what it leaves is orthogonal to them.
    network = study._fitted(study.model)
    wanted = (study.series[1:] - study.series[:-1]) / study.step
    with torch.no_grad():
        states = network.recurrent(study.series[:-1])[0]
        left = (network.readout(states) - wanted)[WARM:]
    assert float((states[WARM:].t() @ left).abs().max()) < 1e-6 * len(left)
    assert "<svg" in (folder / "study.svg").read_text()
