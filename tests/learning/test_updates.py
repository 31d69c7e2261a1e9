from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from elman.errors import InputError
from elman.learning import (
    OPTIMIZERS,
    EarlyStopping,
    Schedule,
    add_l1,
    clip_norm,
    clip_value,
    make_optimizer,
)


def _with_gradients(*gradients):
    parameters = [nn.Parameter(torch.zeros(len(g))) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return parameters


def test_the_norm_is_that_of_all_parameters_as_one_vector():
    parameters = _with_gradients([3.0], [4.0])
    assert float(clip_norm(parameters, 1.0)) == 5.0
    assert torch.allclose(torch.cat([p.grad for p in parameters]), torch.tensor([0.6, 0.8]))


def test_a_small_gradient_is_left_alone():
    parameters = _with_gradients([0.3], [0.4])
    clip_norm(parameters, 1.0)
    assert torch.equal(parameters[0].grad, torch.tensor([0.3]))
    assert float(clip_norm(_with_gradients([30.0]), None)) == 30.0


def test_clipping_by_value():
    (parameter,) = _with_gradients([-3.0, 0.5, 7.0])
    clip_value([parameter], 1.0)
    assert parameter.grad.tolist() == [-1.0, 0.5, 1.0]


@pytest.mark.parametrize("clip", [clip_norm, clip_value])
@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan])
def test_a_threshold_that_would_turn_the_gradient_round_is_refused(clip, threshold):
    parameters = _with_gradients([3.0])
    with pytest.raises(InputError, match="threshold must be positive, received"):
        clip(parameters, threshold)
    assert parameters[0].grad.tolist() == [3.0]


def test_l1_pulls_matrices_and_no_vectors():
    matrix, vector = nn.Parameter(torch.tensor([[2.0, -3.0, 0.0]])), nn.Parameter(torch.ones(2))
    matrix.grad, vector.grad = torch.zeros(1, 3), torch.zeros(2)
    add_l1([matrix, vector], 0.1)
    assert torch.allclose(matrix.grad, torch.tensor([[0.1, -0.1, 0.0]]))
    assert torch.equal(vector.grad, torch.zeros(2))


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


def test_decay_spares_the_biases():
    model = nn.Linear(2, 2)
    optimizer = make_optimizer("adamw", model, 0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight, bias = model.weight.clone(), model.bias.clone()
    optimizer.step()
    assert torch.allclose(model.weight, weight * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias, bias)


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
