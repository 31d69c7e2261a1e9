"""A network's run with every step at hand: what the lens looks at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.cells.step_checks import check_step
from elman.engines.choice import engine
from elman.layers import Recurrent
from elman.layers.states import ordinary


@dataclass
class Steps:
    """What one cell of a network did, step by step.

    The steps are in the cell's own order: in the reverse direction, the first is the one that
    reads the end.

    Attributes:
        cell: the cell with its weights, as it is evaluated.
        layer: which layer it is, from 0.
        reverse: whether it runs from the end to the start.
        inputs: what each step read (B, M).
        before: the states that each step started from, (B, size) for each.
        nudges: zeros that are added to the states that each step made, just before the next step
            and the layer above read them. The gradient of a loss with respect to those of step k
            is ∂L/∂s_k.
    """

    cell: Cell
    layer: int
    reverse: bool
    inputs: list[Tensor] = field(default_factory=list)
    before: list[tuple[Tensor, ...]] = field(default_factory=list)
    nudges: list[tuple[Tensor, ...]] = field(default_factory=list)

    def step(
        self, cell: Cell, args: tuple[Tensor, ...], new: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """A forward hook of the cell: write the step down and nudge its states by zero."""
        x, *states = args
        check_step(cell, x, states, new)
        nudges = tuple(torch.zeros_like(s).requires_grad_() for s in new)
        self.inputs.append(x.detach())
        self.before.append(tuple(s.detach() for s in states))
        self.nudges.append(nudges)
        return tuple(s + nudge for s, nudge in zip(new, nudges, strict=True))

    @property
    def x(self) -> Tensor:
        """The inputs of all steps, (T, B, M)."""
        return torch.stack(self.inputs)

    @property
    def states(self) -> tuple[Tensor, ...]:
        """The states before every step, (T, B, size) for each."""
        return tuple(torch.stack(column) for column in zip(*self.before, strict=True))

    @property
    def direction(self) -> str:
        """``"forward"`` or ``"reverse"``."""
        return "reverse" if self.reverse else "forward"


class Unrolled:
    """The last run of a network under :func:`unrolled`.

    Attributes:
        cells: the :class:`Steps` of each cell, by layer, in each layer by direction.
        y: what the network returned first, its output, in the layout that it returned.
    """

    def __init__(self, network: Recurrent):
        self.cells: list[Steps] = []
        self.y: Any = None
        self.batch_first = network.batch_first

    def start(self, network: Recurrent, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forget an earlier run: a hook before the network's own."""
        for steps in self.cells:
            steps.inputs, steps.before, steps.nudges = [], [], []
        return tuple(map(ordinary, args))

    def end(self, network: Recurrent, _: Any, out: tuple[Any, Any]) -> None:
        """Keep the output: a hook after the network's own."""
        self.y = out[0]

    @property
    def time(self) -> int:
        """Which axis of y is time."""
        return 1 if self.batch_first and self.y.dim() == 3 else 0


@contextmanager
def unrolled(network: Recurrent) -> Iterator[Unrolled]:
    """Within the block, ``network`` runs on the reference engine and its steps are written down.

    It runs as in evaluation, without dropout or noise, and with gradients, whatever surrounds the
    block. The gradient of what is computed from its output reaches each step's ``nudges``.
    """
    run, training, handles = Unrolled(network), network.training, []
    handles.append(network.register_forward_pre_hook(run.start))
    handles.append(network.register_forward_hook(run.end))
    for k, cell in enumerate(network.cells):
        layer, direction = divmod(k, network.num_directions)
        run.cells.append(Steps(cell.without_noise(), layer, direction == 1))
        # Bound to weights or at rest, a cell has the hooks of the one that it comes from.
        handles.append(cell.register_forward_hook(run.cells[-1].step))
    network.eval()
    try:
        with engine("reference"), torch.inference_mode(False), torch.enable_grad():
            yield run
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
