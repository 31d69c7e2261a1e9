"""The gates of any cell, by name: what its step computes on the way from state to state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from elman.cells.contract import Cell
from elman.layers import Recurrent
from elman.lens.unrolled import Steps, unrolled

GATES = frozenset(
    {
        torch.sigmoid, Tensor.sigmoid, functional.sigmoid, torch.special.expit,
        functional.hardsigmoid,
    }
)  # fmt: skip
"""Functions whose values lie between 0 and 1, unit by unit: what a gate is made with."""

_OTHERS = frozenset(
    {
        torch.tanh, Tensor.tanh, functional.tanh, torch.relu, Tensor.relu, functional.relu,
        torch.softmax, Tensor.softmax, functional.softmax, functional.softplus, functional.elu,
        functional.gelu, functional.silu, functional.leaky_relu, functional.hardtanh,
    }
)  # fmt: skip
_PRODUCTS = frozenset(
    {functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm}
)
_CHUNKS = frozenset({torch.chunk, Tensor.chunk})
_JOINS = frozenset({torch.cat, torch.concat})

Names = tuple[str, ...]


@dataclass(frozen=True)
class Activity:
    """What one cell computed at every step.

    Attributes:
        layer: from 0.
        direction: ``"forward"`` or ``"reverse"``.
        gates: values between 0 and 1 by the name of their block (steps, B, H): an LSTM's i, f, o,
            a GRU's r, z.
        candidates: other activations of a block, likewise: an LSTM's g, a GRU's n.
        states: the states after every step, by name (steps, B, size).

    The steps are in the order of time, in both directions.
    """

    layer: int
    direction: str
    gates: dict[str, Tensor]
    candidates: dict[str, Tensor]
    states: dict[str, Tensor]


def activity(network: Recurrent, x: Any, state: Any = None, **options: Any) -> list[Activity]:
    """The gates, candidates and states of every step of ``network``, a list over its cells.

    Args:
        network: any :class:`elman.Recurrent`; it runs as in evaluation and is not changed.
        x, state, options: as its forward takes them.
    """
    with unrolled(network) as run:
        network(x, state, **options)
    return [of_steps(steps) for steps in run.cells]


def of_steps(steps: Steps) -> Activity:
    """The activity of a cell's steps, all computed at once."""
    before = steps.states
    gates, candidates, after = of_step(steps.cell, steps.x, before)
    named = dict(zip(steps.cell.state, after, strict=True))
    parts = (gates, candidates, named)
    if steps.reverse:
        parts = tuple({k: v.flip(0) for k, v in part.items()} for part in parts)  # type: ignore[assignment]
    return Activity(steps.layer, steps.direction, *parts)


@torch.no_grad()
def of_step(
    cell: Cell, x: Tensor, states: Sequence[Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[Tensor, ...]]:
    """A step's gates and candidates by name, and the next states.

    Args:
        cell: a cell with its weights.
        x: (…, M).
        states: (…, size) for each.
    """
    with _Watch(cell) as watch:
        after = cell(x, *states)
    # What a cell makes of its weights alone, such as a decay σ(v), is the same at every step.
    gates, candidates = (
        {name: value for name, value in found.items() if value.shape[:-1] == x.shape[:-1]}
        for found in (watch.gates, watch.candidates)
    )
    return gates, candidates, after


class _Watch(TorchFunctionMode):
    """Follows the blocks of a cell's maps through its step to the activations made of them.

    A weight bears the names of its blocks, and so does what is computed from it: a product with
    it, a sum in which it comes first, and each chunk its own. The first activation of a block's
    values is that block's gate or candidate, and ends the trail: in c' = f ⊙ c + i ⊙ tanh(z.g),
    c' is no block.
    """

    def __init__(self, cell: Cell):
        super().__init__()
        self.gates: dict[str, Tensor] = {}
        self.candidates: dict[str, Tensor] = {}
        # The tensors are kept with their names, so that no identity is given out twice.
        self._named: dict[int, tuple[Tensor, Names]] = {}
        for declared in type(cell).maps():
            for parameter in declared.shapes(cell):
                self._name(getattr(cell, parameter), declared.blocks or (declared.name,))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in GATES or func in _OTHERS:
            found = self.gates if func in GATES else self.candidates
            names = self._names(args[0])
            for name, part in zip(names, _parts(out, names), strict=True):
                found.setdefault(name, part)
        elif func in _CHUNKS:
            names = self._names(args[0])
            share, rest = divmod(len(names), len(out))
            for k, part in enumerate(out if not rest else ()):
                self._name(part, names[k * share : (k + 1) * share])
        elif isinstance(out, Tensor):
            self._name(out, self._of_result(func, args))
        return out

    def _of_result(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Names:
        """The names of what ``func`` makes of ``args``."""
        if func in _JOINS:
            return tuple(name for part in args[0] for name in self._names(part))
        if func in _PRODUCTS:  # a product has the names of its weight, whatever it multiplies
            return self._names(args[1])
        return next((names for arg in args if (names := self._names(arg))), ())

    def _name(self, tensor: Tensor, names: Names) -> None:
        if names:
            self._named[id(tensor)] = tensor, names

    def _names(self, value: Any) -> Names:
        return self._named[id(value)][1] if id(value) in self._named else ()


def _parts(out: Tensor, names: Names) -> Sequence[Tensor]:
    return out.chunk(len(names), -1) if names else ()
