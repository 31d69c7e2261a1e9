"""A first update and a piece of an evaluation, before anything is kept, that leave no trace."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from elman.training.task import Task


def rehearse(
    job: Task, model: nn.Module, fabric: Fabric, epoch: int = 0, window: int = 0, state: Any = None
) -> None:
    """Take the passes of an update and begin an evaluation: what is wrong shows at once.

    The passes are those of a copy of the model: no weight, gradient, buffer or mode changes, and
    what the model makes when it first runs is not there before it would be in a run that goes on
    from the checkpoint. The random numbers to come are the same. Where a model cannot be copied,
    what is wrong with it shows in its first update.

    Args:
        job: the job.
        model: its model, as ``fabric`` has set it up.
        fabric: where and how to compute.
        epoch, window: what the update would learn from.
        state: the network's state before that window.

    Raises:
        Exception: whatever the update or the evaluation would raise.
    """
    job = copy.copy(job)
    with _same_draws(fabric.device):
        try:
            model = copy.deepcopy(model)
        except Exception:  # a cell of somebody's own may hold what cannot be copied, such as a lock
            return
        job.model = getattr(model, "module", model)  # what Fabric has wrapped
        read = next(iter(job.read(epoch, window)), None)
        if read is not None:
            model.train()
            loss, _ = job.loss(model, read, state)
            fabric.backward(loss)
            del loss
        model.eval()
        job.rehearse_evaluation()


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
