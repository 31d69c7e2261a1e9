"""A driven system, approximated by networks of growing width."""

from __future__ import annotations

import math

import pytest
import torch

from elman.errors import InputError
from elman.studies.approximation import SYSTEMS, Approximation, pendulum, plant
from elman.studies.series import train_all


def test_the_pendulum_swings_as_its_equation_says():
    x = torch.full((60, 1), 0.3, dtype=torch.float64)
    y = pendulum(x)[:, 0]
    # Two steps of θ by hand, and where it comes to rest: sin θ is the torque.
    assert float(y[0]) == pytest.approx(math.sin(0.25 * 0.25 * 0.3))
    speed = 0.25 * 0.3
    angle = 0.25 * speed
    speed += 0.25 * (0.3 - math.sin(angle) - speed / 2)
    assert float(y[1]) == pytest.approx(math.sin(angle + 0.25 * speed))
    assert float(pendulum(x.expand(-1, 1).repeat(5, 1))[-1]) == pytest.approx(0.3, abs=1e-6)


def test_the_plant_is_narendras():
    x = torch.tensor([[0.5], [-1.0], [0.2]], dtype=torch.float64)
    first = 0.5**3
    second = first / (1 + first**2) - 1
    third = second / (1 + second**2) + 0.2**3
    assert plant(x)[:, 0].tolist() == pytest.approx([first, second, third])


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_test_is_longer_than_training(system):
    study = Approximation(Approximation.Settings(system=system, length=20, tested_length=90))
    assert [len(next(iter(study.batches("train", 0))).x) for _ in range(2)] == [20, 20]
    assert len(next(iter(study.batches("validation"))).x) == 20
    (batch,) = study.batches("test")
    _, most, held = SYSTEMS[system]
    assert len(batch.x) == 90 and float(batch.x.abs().max()) <= most
    changes = {t for t in range(1, 90) if not torch.equal(batch.x[t], batch.x[t - 1])}
    assert changes == set(range(held, 90, held))


def test_the_error_falls_with_the_width(tmp_path):
    settings = Approximation.Settings(
        widths=[1, 12], length=20, tested_length=60, updates=250, every=250
    )
    found = train_all(Approximation, settings, [0], tmp_path / "study")
    narrow, wide = found["rows"]
    assert (narrow["units"], wide["units"]) == (1, 12)
    for name in ("error of 20 steps", "error of 60 steps"):
        assert wide[name] < 0.6 * narrow[name]
    assert (tmp_path / "study/1-units-seed-0").is_dir()
    assert (tmp_path / "study/study.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="widths must be different"):
        train_all(Approximation, Approximation.Settings(widths=[2, 2]), [0], tmp_path / "other")


def test_a_network_of_the_systems_own_equation_makes_no_error():
    """What is measured is the network's error alone: a model that is the system has none."""
    study = Approximation(Approximation.Settings(length=20, tested_length=60))

    class Oracle(torch.nn.Module):
        def forward(self, batch):
            return batch.target

    study.fitted = lambda model: model
    measured = study.measure(Oracle(), study.batches("test"))
    assert measured["normalised_error"] == measured["normalised_error_within"] == 0
