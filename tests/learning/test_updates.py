from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from elman.learning import (
    OPTIMIZERS,
    EarlyStopping,
    Schedule,
    make_optimizer,
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_lowers_a_loss(name):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    x, y = torch.randn(64, 4), torch.randn(64, 1)
    optimizer = make_optimizer(name, model, 0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def _schedule(name, **options):
    optimizer = make_optimizer("sgd", nn.Linear(1, 1), 1.0)
    return Schedule(optimizer, name, 2.0, **options)


def test_warm_up_then_cosine():
    schedule = _schedule("cosine", warmup=4, total=24)
    assert [schedule.rate(s) for s in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert schedule.rate(4) == 2.0
    assert schedule.rate(14) == pytest.approx(1.0)
    assert schedule.rate(24) == pytest.approx(0.0)
    assert schedule.rate(19) == pytest.approx(1 + math.cos(math.pi * 0.75))


def test_linear_and_setting_the_optimiser():
    schedule = _schedule("linear", total=10)
    assert schedule.set(5) == 1.0
    assert schedule.optimizer.param_groups[0]["lr"] == 1.0


def test_plateau_divides_after_patience_runs_out():
    schedule = _schedule("plateau", division=4.0, patience=1)
    rates = []
    for loss in (3.0, 2.0, 2.5, 2.5, 1.0, 1.5, 1.5):
        schedule.observe(loss)
        rates.append(schedule.rate(100))
    assert rates == [2.0, 2.0, 2.0, 0.5, 0.5, 0.5, 0.125]
    other = _schedule("plateau", division=4.0, patience=1)
    other.load_state_dict(schedule.state_dict())
    assert other.rate(0) == 0.125


def test_early_stopping():
    stopping = EarlyStopping(2)
    assert [stopping.observe(loss) for loss in (2.0, 1.0, 1.0, 3.0)] == [True, True, False, False]
    assert stopping.stop
    again = EarlyStopping(2)
    again.load_state_dict(stopping.state_dict())
    assert again.stop
    assert not EarlyStopping(None).stop


def test_a_rate_that_was_divided_very_often_is_zero():
    optimizer = make_optimizer("sgd", torch.nn.Linear(1, 1), 0.1)
    schedule = Schedule(optimizer, "plateau", 0.1, division=1e300)
    schedule.divisions = 1
    assert schedule.rate(5) == pytest.approx(1e-301)
    schedule.divisions = 2  # 10^600 is more than a float holds
    assert schedule.rate(5) == 0.0
