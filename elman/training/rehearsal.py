"""A first update and a piece of an evaluation, before anything is kept, that leave no trace."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning_fabric import Fabric

from elman.training.gradients import make_gradients
from elman.training.settings import TrainingSettings

if TYPE_CHECKING:
    from elman.training.task import Task


def rehearse(
    task: Task,
    fabric: Fabric,
    settings: TrainingSettings,
    epoch: int = 0,
    window: int = 0,
    carry: Any = None,
) -> None:
    """Take the passes of an update and begin an evaluation: what is wrong shows at once.

    The passes are those of a copy of the model: no weight, gradient, buffer or mode changes, and
    what the model makes when it first runs is not there before it would be in a run that goes on
    from the checkpoint. The random numbers to come are the same. Where a model cannot be copied,
    what is wrong with it shows in its first update.

    Args:
        task: the job.
        fabric: where and how to compute.
        settings: how it learns.
        epoch, window: what the update would learn from.
        carry: what that batch would go on from.

    Raises:
        Exception: whatever the update or the evaluation would raise.
    """
    task = copy.copy(task)
    with _same_draws(fabric.device):
        try:
            task.model = copy.deepcopy(task.model)
        except Exception:  # a cell of somebody's own may hold what cannot be copied, such as a lock
            return
        learned = task.batches("train", epoch)
        batch = next(learned.after(window), None)
        if batch is not None:
            task.model.train()
            make_gradients(task, settings, fabric)(batch, carry, False)
        # The gradients stay, as they do while a training measures.
        held_out = task.batches("validation")
        if held_out:
            with fabric.autocast():
                task.measure(task.model, islice(held_out, 1))


@contextmanager
def _same_draws(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside, the random numbers to come are those that would have come."""
    drawn, arrays = random.getstate(), np.random.get_state()
    others = {"device_type": "cuda"} if device.type == "cpu" else {"device_type": device.type}
    try:
        with torch.random.fork_rng([] if device.type == "cpu" else [device], **others):
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(arrays)
