"""What a checkpoint must hold before a training goes on from it."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn, optim

from elman.learning import make_optimizer
from elman.training import schema
from elman.training.schema import Rule, number, optional, record, tensor, whole
from elman.training.settings import TrainingSettings
from elman.training.weights import unsaved_buffers


def rule_of_checkpoint(
    position: type, model: nn.Module, optimizer: optim.Optimizer, settings: TrainingSettings
) -> Rule:
    """The rule of a checkpoint of this model and this optimiser.

    Every value is there and of its type, every tensor of the shape and type that the model or the
    optimiser has, and none has NaN. What an optimiser keeps of squares is not negative.

    Args:
        position: the dataclass of where a training stands: whole numbers, and finite ones.
        model: that goes on.
        optimizer: that goes on.
        settings: of the training.
    """
    kinds = {"int": whole(), "float": number(0)}
    where = {each.name: kinds[str(each.type)] for each in fields(position)} | {"loss": number()}
    waiting = {"waited": whole(), "best": optional(number())}
    lists = [group["params"] for group in optimizer.state_dict()["param_groups"]]
    return record(
        {
            "position": record(where),
            "model": record({name: tensor(t) for name, t in model.state_dict().items()}),
            "optimizer": record(
                {
                    "state": _rule_of_averages(optimizer, settings),
                    "param_groups": _rule_of_groups(lists),
                }
            ),
            "schedule": record({"divisions": whole(), **waiting}),
            "stopping": record(waiting),
            "state": _rule_of_state,
            "random": tensor(torch.get_rng_state()),
        },
        {
            "random_cuda": schema.anything,
            "buffers": record({}, {name: tensor(t) for name, t in unsaved_buffers(model).items()}),
        },
    )


def _rule_of_averages(optimizer: optim.Optimizer, settings: TrainingSettings) -> Rule:
    """The rule of what an optimiser keeps for each parameter, by the parameter's number."""
    weight, probe = _averages_after_one_step(settings)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def rule_of(value: Any, parameter: Tensor) -> Rule:
        if not isinstance(value, Tensor):
            return optional(tensor(parameter)) if value is None else number()
        negative = bool((value < 0).any())
        least = -math.inf if negative else 0.0  # squares may overflow: they divide
        if value.shape == weight.shape:
            return optional(tensor(parameter, least=least, infinite=not negative))
        return tensor(value, least=least, cast=True)

    def rule(value: Any, field: str) -> None:
        if not isinstance(value, dict):
            raise schema.mismatch(field, value, "what the optimiser keeps, by parameter")
        for key, averages in value.items():
            inside = f"{field}.{key}"
            if type(key) is not int or not 0 <= key < len(parameters):
                raise schema.Mismatch(f"{inside!r} is of no parameter of the model")
            parameter = parameters[key]
            rules = {name: rule_of(kept, parameter) for name, kept in probe.items()}
            record(rules, others=optional(tensor(parameter)))(averages, inside)

    return rule


def _averages_after_one_step(settings: TrainingSettings) -> tuple[Tensor, dict[str, Any]]:
    """A weight, and what the optimiser keeps for it after gradients of both signs."""
    small = nn.Module()
    small.weight = nn.Parameter(torch.zeros(3, 2))
    small.weight.grad = torch.tensor([[-1.0, 1.0], [2.0, -2.0], [-3.0, 3.0]])
    decay, momentum = settings.weight_decay, settings.momentum
    optimizer = make_optimizer(settings.optimizer, small, 1e-3, decay, momentum)
    optimizer.step()
    return small.weight, optimizer.state[small.weight]


def _rule_of_groups(lists: list[list[int]]) -> Rule:
    """The rule of an optimiser's groups: the same parameters; their options are the settings'."""
    group = record({"params": schema.listed(whole())}, others=schema.anything)

    def rule(value: Any, field: str) -> None:
        schema.listed(group)(value, field)
        if [each["params"] for each in value] != lists:
            raise schema.Mismatch(f"{field!r} is of other parameters than the model has")

    return rule


def _rule_of_state(value: Any, field: str) -> None:
    """The rule of a network's state: any nesting of tensors; their shapes show when it is read."""
    if isinstance(value, tuple):
        for k, part in enumerate(value):
            _rule_of_state(part, f"{field}[{k}]")
    elif value is not None:
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            raise schema.mismatch(field, value, "tensors of numbers with a fraction")
        tensor(value, infinite=True)(value, field)
