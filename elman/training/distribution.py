"""Several processes that train one model together, each on its share of every batch.

Each has a model of its own, and after every update all models are the same, because all gradients
are: those of a batch as large as all shares together. They are added up in one message when the
backward pass is over, and not, as PyTorch's DistributedDataParallel does, by hooks within it: so a
job may call whatever methods of its model it likes, and a learning rule that has no backward pass
learns as well.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import distributed, nn
from torch.nn import Parameter

from elman.data.shards import Shard
from elman.errors import ElmanError, InputError
from elman.training.device import pick
from elman.training.measures import Sums, add
from elman.training.settings import TrainingSettings


class _Replicas(DDPStrategy):
    """Processes that Fabric starts and connects; what is exchanged is this module's matter."""

    def setup_module(self, module: nn.Module) -> Any:
        return module


class Processes:
    """The processes of a training; mostly there is but this one.

    ``torchrun`` starts them, or else Fabric does: as many on this machine as ``devices`` says.

    Attributes:
        fabric: the device and the precision.
        shard: which of them this is, and how many there are.
        first: whether this is the one that writes files and shows progress.

    Raises:
        InputError: the device is not there, or several processes are told to share one.
    """

    def __init__(self, settings: TrainingSettings):
        device = pick(settings.device)
        devices, nodes = settings.devices, settings.nodes
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun has started them
            devices = int(os.environ["LOCAL_WORLD_SIZE"])
            nodes = int(os.environ["WORLD_SIZE"]) // devices
        several = devices * nodes > 1
        if several and device.index is not None:
            raise InputError(
                f"`device` {settings.device} is one device, received {devices} `devices` on "
                f"{nodes} `nodes`: name the kind alone, such as {device.type}."
            )
        self.fabric = Fabric(
            accelerator=device.type,
            devices=devices if device.index is None else [device.index],
            num_nodes=nodes,
            strategy=_Replicas() if several else "auto",
            precision=settings.precision,  # type: ignore[arg-type] # its choices are checked
        )
        # Who is connected to whom is of no interest where all goes well.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        with _failing_together():
            self.fabric.launch()
        self.shard = Shard(self.fabric.global_rank, self.fabric.world_size)
        if not self.first:  # what all find, one says
            logging.getLogger("elman").addFilter(lambda record: record.levelno > logging.INFO)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.shard.rank == 0

    @property
    def several(self) -> bool:
        """Whether there is another one."""
        return self.shard.world > 1

    def agree(self, value: Any) -> Any:
        """What the first process says, in all of them."""
        if not self.several:
            return value
        said = [value]
        with _failing_together():
            distributed.broadcast_object_list(said, 0)
        return said[0]

    def wait(self) -> None:
        """Until all of them are here."""
        if self.several:
            with _failing_together():
                distributed.barrier()

    def alike(self, model: nn.Module) -> None:
        """Give every process the first one's weights, and random numbers of its own."""
        if not self.several:
            return
        with _failing_together():
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, 0)
        torch.manual_seed((torch.initial_seed() + 0x9E3779B9 * self.shard.rank) % 2**63)

    def together(self, sums: Sums) -> Sums:
        """The sums of all processes, added up in the order of their ranks."""
        if not self.several:
            return sums
        each: list[Any] = [None] * self.shard.world
        with _failing_together():
            distributed.all_gather_object(each, sums)
        whole: Sums = {}
        for part in each:
            add(whole, part)
        return whole

    def add_up(self, parameters: Sequence[Parameter], figures: Sequence[float]) -> list[float]:
        """Add the gradients of all processes up, in place, and some figures beside them.

        A parameter that no process has a gradient for is left without one.
        """
        if not self.several:
            return list(figures)
        like = parameters[0]
        there = [0.0 if p.grad is None else 1.0 for p in parameters]
        # Counts of some size need more bits than a gradient.
        numbers = torch.tensor([*figures, *there], dtype=torch.float64, device=like.device)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([g.flatten() for g in grads])
        with _failing_together():
            distributed.all_reduce(numbers)
            distributed.all_reduce(flat)
        summed = numbers.tolist()
        parts = flat.split([p.numel() for p in parameters])
        for p, part, count in zip(parameters, parts, summed[len(figures) :], strict=True):
            if count:
                p.grad = part.view_as(p)
        return summed[: len(figures)]


def scale(parameters: Iterable[Parameter], factor: float) -> None:
    """Multiply every gradient, in place."""
    for p in parameters:
        if p.grad is not None:
            p.grad.mul_(factor)


@contextmanager
def _failing_together() -> Iterator[None]:
    """What is sent to a process that is no more fails at once: say so in a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise ElmanError(
            "another process of this training has failed or cannot be reached "
            f"({str(error).splitlines()[0]}): its own message says why; go on with `resume`."
        ) from error
