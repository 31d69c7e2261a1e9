"""What all studies that train share: gates, types, the training."""

from __future__ import annotations

import pytest
import torch

from elman.studies import STUDIES
from elman.studies.counting import AnBn
from elman.studies.long_lags import Adding, Copy
from elman.studies.study import Learning, make_cell
from elman.training.report import Report

TYPES = [(torch.float64, torch.float64), (torch.float32, torch.float64)]
"""PyTorch's default and the weights'."""
DRAWN = [
    name
    for name, kind in STUDIES.items()
    if issubclass(kind, Learning) and name not in ("pixel-mnist", "dynamics")
]


@pytest.mark.parametrize(("standard", "dtype"), TYPES)
@pytest.mark.parametrize("name", DRAWN)
def test_a_study_in_the_weights_type(name, standard, dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(standard)
    try:
        study = STUDIES[name](STUDIES[name].Settings())
        network = study.make().to(dtype)
        study.loss(network, study.batch(torch.Generator().manual_seed(0), 3, 12)).backward()
    finally:
        torch.set_default_dtype(before)
    for parameter in network.parameters():
        if parameter.grad is not None:
            assert parameter.grad.dtype == dtype and parameter.grad.isfinite().all()


def test_gates_start_for_long_memories():
    settings = Adding.Settings(memory=100, hidden=500)
    cell = make_cell(settings, 2)
    blocks = dict(zip("ifgo", cell.get_parameter("bias_ih").view(4, -1), strict=True))
    assert torch.equal(blocks["i"], -blocks["f"])
    assert blocks["f"].min() >= 0 and 99 * 0.9 < blocks["f"].exp().max() <= 99.01
    ring = make_cell(Copy.Settings(memory=100), 10)
    nu = ring.get_parameter("weight_decay").view(3, -1)[0]
    radius = torch.exp(-torch.exp(nu))
    assert (radius >= 0.9899).all() and (radius <= 1).all()
    gru = make_cell(AnBn.Settings(cell="gru", forget_bias=6.0), 4)
    assert (gru.get_parameter("bias_ih").view(3, -1)[1] == 6).all()
    make_cell(AnBn.Settings(cell="rnn"), 4)  # has no gate: nothing to set


TINY = {"hidden": 4, "updates": 6, "batch": 4, "every": 3, "seeds": 2}


TRAINED = ["reber", "two-sequence", "adding", "multiplication", "temporal-order", "copy"]
TRAINED += ["anbn", "anbncn"]


@pytest.mark.parametrize("name", TRAINED)
def test_every_training_runs(name, tmp_path):
    cell = "gru" if name == "anbncn" else "lstm"  # states and cell states
    study = STUDIES[name](STUDIES[name].Settings(**TINY, cell=cell, length=10))
    with Report() as report:
        outcome = study.run(report)
    assert [row["seed"] for row in outcome.rows] == [0, 1]
    assert [point[0] for point in outcome.details["curves"][0]] == [3, 6]
    assert not any(row["reached"] for row in outcome.rows)
    study.draw(outcome, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_training_ends_at_the_goal_and_is_the_same_for_the_same_seed():
    settings = Copy.Settings(length=5, hidden=64, updates=400, seeds=1)
    outcomes = []
    for _ in range(2):
        with Report() as report:
            outcomes.append(Copy(settings).run(report))
    (row,) = outcomes[0].rows
    assert row["reached"] and row["figure"] >= 0.99 and row["updates"] < 400
    assert outcomes[0].details["curves"] == outcomes[1].details["curves"]
