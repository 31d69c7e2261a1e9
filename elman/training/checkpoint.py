"""Keeping a training, and going on with it: the same bits as if it had never stopped."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn, optim

from elman import nested
from elman.cells.registry import own_line
from elman.errors import ElmanError, one_line
from elman.learning import make_optimizer
from elman.training import schema
from elman.training.schema import Mismatch, Rule, number, optional, record, tensor, text, whole
from elman.training.settings import TrainingSettings
from elman.training.weights import give_buffers, make_room, unsaved_buffers

if TYPE_CHECKING:
    from elman.training.loop import Trainer

Weights = dict[str, Tensor]


def finite(weights: Weights) -> bool:
    """Whether weights may be kept: none has overflowed."""
    each = [t.isfinite().all() for t in weights.values() if t.is_floating_point()]
    # In one look, because a device is waited for at every one.
    return not each or bool(torch.stack([whole.to(each[0].device) for whole in each]).all())


def save(trainer: Trainer, best: Weights | None) -> Weights | None:
    """Keep all that going on needs, and the best weights if they are new.

    The first process writes what all share; where there are several, each writes what is its own
    before, under the number of the update, so that one that dies between leaves a whole checkpoint.

    Returns:
        the best weights that are still to be kept.
    """
    model, run, processes = trainer.model, trainer.run, trainer.processes
    weights, at = model.state_dict(), trainer.position
    if not finite(weights):
        return best  # they must not replace the last good ones
    own: dict[str, Any] = {
        # At the start of an epoch there is none, unless it goes on from the one before.
        "carry": trainer.carry if at.window or trainer.task.endless else None,
        "random": torch.get_rng_state(),
        "sums": {"loss": 0.0, "count": 0, **at.sums},
    }
    if trainer.fabric.device.type == "cuda":
        own["random_cuda"] = torch.cuda.get_rng_state(trainer.fabric.device)
    if processes.several:
        run.save_share(processes.shard.rank, at.moment, own)
        processes.wait()
    if not processes.first:
        return None
    position = asdict(at)
    position.pop("sums")
    # The model first: should the checkpoint not follow, resuming finds the same best again.
    if best is not None or not run.has_model:
        run.save_model(best or weights)
    run.save_checkpoint(
        {
            "position": position,
            "model": weights,
            "optimizer": trainer.optimizer.state_dict(),
            "schedule": trainer.schedule.state_dict(),
            "stopping": trainer.stopping.state_dict(),
            "average": trainer.average.state_dict(),
            "buffers": unsaved_buffers(model),
            "processes": processes.shard.world,
            "own": own,
        }
    )
    run.forget_shares(at.moment)
    return None


def load(trainer: Trainer) -> None:
    """Go on from what :func:`save` has kept.

    Raises:
        ElmanError: there is no checkpoint, it is damaged, or does not fit the settings.
    """
    run, model, processes = trainer.run, trainer.model, trainer.processes
    if processes.first:
        run.clear_temporary()
    run.load_model()  # what is wrong with the best weights must not show after all training
    state = run.load_checkpoint()
    trainer.task.check_data()
    for kept in ("model", "buffers"):
        make_room(model, state[kept] if isinstance(state.get(kept), dict) else {})
    at = trainer.position
    try:
        _rule(type(at), model, trainer.optimizer, trainer.settings)(state, "")
        if state["processes"] != processes.shard.world:
            raise Mismatch(f"it was trained by {state['processes']} processes")
        for name, value in state["position"].items():
            setattr(at, name, value)
        own = state["own"]
        if processes.several:
            own = run.load_share(processes.shard.rank, at.moment)
            _rule_of_own(own, "own")
        at.sums = own["sums"]
        if at.window > len(trainer.batches(at.epoch)):
            raise Mismatch("'position.window' is beyond the data")
        model.load_state_dict(state["model"])
        give_buffers(model, state["buffers"])
        _load_optimizer(trainer.optimizer, state["optimizer"]["state"])
        trainer.schedule.load_state_dict(state["schedule"])
        trainer.stopping.load_state_dict(state["stopping"])
        trainer.average.load_state_dict(state["average"])
        _set_draws(own, trainer.fabric.device)
        if at.window or trainer.task.endless:
            device = trainer.fabric.device
            trainer.carry = nested.map(lambda part: part.to(device), own["carry"])
            trainer.rehearse()
    except (KeyError, TypeError, ValueError) as error:
        if own_line(error.__cause__ or error):  # a cell of the user's own is wrong
            raise
        raise ElmanError(
            f"{run.checkpoint} does not fit the settings of its run ({one_line(error)}): "
            "give the options of its training, or train anew."
        ) from None
    if not processes.first:
        return
    for fault in run.forget_after(at.epoch, *trainer.needed):
        trainer.report.say(fault)
    if trainer.watch is not None:
        trainer.watch.forget_after(at.update)


def _set_draws(own: dict[str, Any], device: torch.device) -> None:
    try:
        torch.set_rng_state(own["random"])
        if "random_cuda" in own and device.type == "cuda":
            torch.cuda.set_rng_state(own["random_cuda"], device)
    except RuntimeError as error:
        raise Mismatch(f"'own.random' cannot be used: {error}") from None


def _load_optimizer(optimizer: optim.Optimizer, averages: dict[int, Any]) -> None:
    """Go on with the kept averages, and with the options of the settings."""
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": averages, "param_groups": groups})


# -- what it must hold ----------------------------------------------------------------------------


def _rule(
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
    where = {each.name: kinds[str(each.type)] for each in fields(position) if each.name != "sums"}
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
            "average": record(
                {
                    "kind": text(),
                    "count": whole(),
                    "waited": optional(whole()),
                    "means": _rule_of_means(dict(model.named_parameters())),
                }
            ),
            "buffers": record({}, {name: tensor(t) for name, t in unsaved_buffers(model).items()}),
            "processes": whole(1),
            "own": _rule_of_own,
        },
    )


def _rule_of_means(parameters: dict[str, nn.Parameter]) -> Rule:
    """The rule of an average: of every parameter, or none yet."""
    whole_of_it = record({name: tensor(p) for name, p in parameters.items()})
    return lambda value, field: None if value == {} else whole_of_it(value, field)


def _rule_of_own(value: Any, field: str) -> None:
    """The rule of what each process has for itself."""
    record(
        {
            "carry": _rule_of_carry,
            "random": tensor(torch.get_rng_state()),
            "sums": record({"loss": number(), "count": number(0)}, others=number()),
        },
        {"random_cuda": schema.anything},
    )(value, field)


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


def _rule_of_carry(value: Any, field: str) -> None:
    """The rule of what is carried: any nesting of tensors; their shapes show when it is read."""
    if isinstance(value, tuple):
        for k, part in enumerate(value):
            _rule_of_carry(part, f"{field}[{k}]")
    elif value is not None:
        if not isinstance(value, Tensor):
            raise schema.mismatch(field, value, "tensors")
        tensor(value, infinite=True)(value, field)
