"""An update as a CUDA graph: recorded once for each shape of batch, and replayed in one launch.

A GPU takes an update of a small network in less time than Python takes to ask for its some hundred
operations one by one; a graph is asked for once (PyTorch's ``torch.cuda.CUDAGraph``).
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from elman import nested
from elman.errors import one_line

if TYPE_CHECKING:
    from elman.training.loop import Trainer

_DEVICES = ("cuda",)
_WARM = 2  # updates of a shape before it is recorded: what is made at first use is there
_MOST = 16  # graphs; each keeps memory of its own
_UNREAD = 32  # updates whose losses may wait on the device

_logger = logging.getLogger("elman")


class Update(NamedTuple):
    """What an update told, once it is read from the device."""

    loss: float
    norm: float
    units: int
    rate: float


class _Recorded(NamedTuple):
    replay: Callable[[], None]
    batch: Any
    units: int


class Graphs:
    """Replays updates of a :class:`Trainer` where they can be recorded.

    Losses and norms stay on the device until :meth:`read`, so that the host never waits for one
    update before it begins the next. What is computed is what an update computes that is not
    recorded: every shape of batch is learned from eagerly first, then recorded, then replayed.

    Args:
        trainer: whose updates they are.

    Attributes:
        why: why no update is recorded, or nothing where some are.
    """

    def __init__(self, trainer: Trainer):
        # Not held: whoever lets go of a trainer lets go of its run at once.
        self.trainer: Trainer = weakref.proxy(trainer)
        self.optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
        self.why = self._obstacle()
        self._seen: dict[Any, int] = {}
        self._recorded: dict[Any, _Recorded | None] = {}  # None: it cannot be
        self._told_of: set[str] = set()
        self._parameters = list(trainer.model.parameters())
        self._where: list[int] = []
        self._pending: list[tuple[int, float]] = []  # counts and rates of what is not read yet
        if not self.why:
            self._prepare()

    def _obstacle(self) -> str:
        its, trainer = self.trainer.settings, self.trainer
        if its.graph == "off" or trainer.fabric.device.type not in _DEVICES:
            return "none is wanted"
        if not trainer.task.by_shape:
            return f"what {trainer.task.name} computes depends on more than a batch's shape"
        if its.learning is not None:
            return f"`learning` {its.learning} takes its steps one by one"
        if its.average != "none":
            return "the `average` of the weights counts its updates on the host"
        if its.accumulate > 1 or trainer.processes.several:
            return "the gradients of several batches are added up"
        if its.precision == "bf16-mixed":
            return "`precision` bf16-mixed casts the weights anew for each update"
        groups = self.optimizer.param_groups
        if its.optimizer != "sgd" and not all("capturable" in group for group in groups):
            return f"PyTorch's {its.optimizer} counts its updates on the host"
        return ""

    def _prepare(self) -> None:
        """Let the optimiser keep on the device whatever it counts."""
        device = self.trainer.fabric.device
        for group in self.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True
            else:
                group["fused"] = True  # SGD: its other ways read the rate on the host
        vars(self.optimizer)["_warned_capturable_if_run_uncaptured"] = True
        self._rate = torch.zeros((), device=device)
        self._told = torch.zeros(_UNREAD, 2, dtype=torch.float64, device=device)
        self._at = torch.zeros(1, dtype=torch.long, device=device)
        self._carry: Any = None  # where every graph finds the state, and leaves it
        self._pool: Any = None

    # -- an update ----------------------------------------------------------------------------

    def take(self, some: list[Any], rate: float) -> int | None:
        """Replay an update; how many units it learned from, or None where it is to run eagerly."""
        if self.why or some[0] is None:
            return None
        (batch,) = some
        where = [p.data_ptr() for p in self._parameters]
        if where != self._where:  # a graph holds addresses, and the weights have moved
            self._recorded.clear()
            self._pool = None  # which ends with its last graph
            self._where = where
        key = (_shapes(batch), _shapes(self.trainer.carry))
        recorded = self._recorded.get(key)
        if recorded is None:
            if key in self._recorded:
                return None
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] <= _WARM or len(self._recorded) >= _MOST:
                return None
            recorded = self._recorded[key] = self._record(batch)
            if recorded is None:
                return None
        for held, given in zip(nested.leaves(recorded.batch), nested.leaves(batch), strict=True):
            held.copy_(given, non_blocking=True)
        if self.trainer.carry is not None and self.trainer.carry is not self._carry:
            _copy(self._carry, self.trainer.carry)
        self._rate.fill_(rate)
        recorded.replay()
        self.trainer.carry = self._carry
        self._pending.append((recorded.units, rate))
        return recorded.units

    @property
    def full(self) -> bool:
        """Whether what is told is to be read before the next update."""
        return len(self._pending) >= _UNREAD

    def read(self) -> list[Update]:
        """What the updates told that were replayed since it was last read."""
        if not self._pending:
            return []
        told = self._told[: len(self._pending)].tolist()
        found = [
            Update(loss, norm, *known)
            for (loss, norm), known in zip(told, self._pending, strict=True)
        ]
        self._pending = []
        self._at.zero_()
        return found

    # -- recording ----------------------------------------------------------------------------

    def _record(self, batch: Any) -> _Recorded | None:
        trainer = self.trainer
        held = nested.map(lambda t: t.to(trainer.fabric.device, copy=True), batch)
        if trainer.carry is not None and self._carry is None:
            self._carry = nested.map(torch.clone, trainer.carry)
        carry = None if trainer.carry is None else self._carry
        self.optimizer.zero_grad()
        try:
            with self._rates_on_device():
                replay, count = self._captured(lambda: self._update(held, carry))
        except Exception as error:  # whatever a job does that a graph cannot hold
            why = one_line(error)
            if why not in self._told_of:
                self._told_of.add(why)
                _logger.warning(
                    "Updates of this shape run one by one, not as a CUDA graph: an update cannot "
                    "be recorded (%s).", why,
                )  # fmt: skip
            self.optimizer.zero_grad()
            return None
        return _Recorded(replay, held, count)

    def _captured(self, update: Callable[[], int]) -> tuple[Callable[[], None], int]:
        """What replays the work of an update on the GPU, which is recorded and not done."""
        device, graph = self.trainer.fabric.device, torch.cuda.CUDAGraph()
        draws = torch.cuda.get_rng_state(device)
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                count = update()
        except BaseException:
            torch.cuda.set_rng_state(draws, device)
            raise
        self._pool = graph.pool()
        return graph.replay, count

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        groups = self.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] = self._rate
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

    def _update(self, batch: Any, carry: Any) -> int:
        """An update as the trainer takes it, whose loss and norm go to a row of what is told."""
        found = self.trainer.gradients(batch, carry, False)
        if found.sums or not found.count:
            raise ValueError("its loss comes with other figures")
        norm = self.trainer.clip()
        self.trainer.optimizer.step()
        row = torch.stack([found.value.detach().double(), norm.double()])
        self._told.index_copy_(0, self._at, row.unsqueeze(0))
        self._at.add_(1)
        if found.carry is not None:
            if self._carry is None:
                # Of this graph's memory, which is its own as long as it is there.
                self._carry = nested.map(torch.clone, found.carry)
            else:
                _copy(self._carry, found.carry)
        return found.count


def _copy(into: Any, given: Any) -> None:
    held, new = nested.leaves(into), nested.leaves(given)
    if held:
        torch._foreach_copy_(held, new)


def _shapes(value: Any) -> Any:
    return tuple((tuple(t.shape), t.dtype) for t in nested.leaves(value))
