"""Where a training gets its gradients from: a batch and a carry in, ``.grad`` filled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from elman import nested
from elman.errors import InputError
from elman.layers import Recurrent
from elman.learning import RULES, TruncatedBPTT, detach
from elman.training.measures import Loss
from elman.training.settings import TrainingSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Gradients = Callable[[Any, Any, bool], Loss]
"""From a batch, what to go on from, and whether to add the gradient of the batch's summed loss
(mean times count) rather than of its mean, to the loss with what the next batch goes on from."""


class Recurrence(NamedTuple):
    """A model as learning rules see it: what stands before a recurrent network, and behind it.

    Attributes:
        network: the recurrent network.
        read: from a batch to the network's input, x (T, B, M).
        loss: from the network's output y (T, B, S) and the batch to the loss.
        goes_on: whether a batch goes on from where the one before ended, row by row.
    """

    network: Recurrent
    read: Callable[[Any], Tensor]
    loss: Callable[[Tensor, Any], Loss]
    goes_on: bool = True


def moved(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors on a device; they may be in any nesting."""
    return nested.map(lambda tensor: tensor.to(device), batch)


def make_gradients(task: Any, settings: TrainingSettings, fabric: Fabric) -> Gradients:
    """By which rule a job's model learns.

    Raises:
        InputError: the rule cannot be used with the job, or its network.
    """
    if settings.learning is None:
        return _through_each_batch(task, fabric)
    recurrence = task.recurrence()
    if recurrence is None:
        raise InputError(
            f"the model of {task.name} is more than a network that reads a stream, and only "
            "backpropagation can train it: leave out `learning`."
        )
    return _by_rule(recurrence, settings, fabric.device)


def _through_each_batch(task: Any, fabric: Fabric) -> Gradients:
    """Backpropagation; where a state is carried, truncated at the beginning of each batch."""

    def gradients(batch: Any, carry: Any, summed: bool) -> Loss:
        with fabric.autocast():
            loss: Loss = task.loss(task.model, moved(batch, fabric.device), carry)
        if loss.count:  # the mean over nothing is no number, and neither is its gradient
            fabric.backward(loss.objective * loss.count if summed else loss.objective)
        return loss._replace(carry=detach(loss.carry))

    return gradients


def _by_rule(recurrence: Recurrence, settings: TrainingSettings, device: torch.device) -> Gradients:
    """One of elman's learning rules; what it keeps of the past is what is carried."""
    network, read, loss_of, goes_on = recurrence
    found: list[Loss] = []
    summed = False

    def loss(y: Tensor, batch: Any) -> Tensor:
        found[:] = [loss_of(y, batch)]
        if not found[0].count:  # the mean over nothing is no number, and neither is its gradient
            return 0 * y.sum()
        return found[0].objective * found[0].count if summed else found[0].objective

    kind = RULES[settings.learning or ""]
    rule = kind(network, loss, settings.reach) if kind is TruncatedBPTT else kind(network, loss)

    def gradients(batch: Any, carry: Any, whole: bool) -> Loss:
        nonlocal summed
        summed, rule.memory = whole, carry if goes_on else None
        batch = moved(batch, device)
        rule.gradients(read(batch), batch)
        return found[0]._replace(carry=rule.memory)

    return gradients
