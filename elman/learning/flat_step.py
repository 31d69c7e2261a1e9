"""One step of a network as a function of one vector, and maps of states whose derivative is cut."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from elman.cells.contract import Cell
from elman.cells.step_checks import check_step
from elman.errors import InputError
from elman.layers import Recurrent, links


class FlatStep(nn.Module):
    """One step of a network as a function of one vector: y and s' from x (…, M) and s (…, n).

    s holds the first state of every layer, then the second of every layer, and so on.

    Args:
        network: in one direction.
        keep: what stays of ∂(U h)/∂h in every map of a state: ``"all"`` of it, its
            ``"diagonal"``, or ``"nothing"``. Values and the weights' gradients stay as they are.
    """

    def __init__(self, network: Recurrent, keep: str = "all"):
        super().__init__()
        self.network, self.keep = network, keep
        sizes = [cell.state_sizes for cell in network.cells]
        self.sizes = [list(column) for column in zip(*sizes, strict=True)]  # by state, by layer
        self.width = sum(map(sum, self.sizes))

    def forward(self, x: Tensor | None, s: Tensor, apart: bool = False) -> tuple[Tensor, Tensor]:
        """One step; without x, where sequences start.

        With ``apart``, each layer takes what the layer below gives it for a constant.
        """
        network, new = self.network, []
        if x is None:
            start = self.flat(network.initial_state(1)).squeeze(0)
            return start, start
        for layer, states in enumerate(zip(*self._parts(s), strict=True)):
            cell = network._noiseless[layer].bind(network.weights(layer))
            with (
                nullcontext()
                if self.keep == "all"
                else _Cut(self.keep == "diagonal", cell, x, states)
            ):
                after = cell(x, *states)
            check_step(cell, x, states, after)
            x = links.join(network, layer, x, after[0])
            x = x.detach() if apart else x
            new.append(after)
        return x, torch.cat([part for column in zip(*new, strict=True) for part in column], -1)

    def flat(self, state: Any) -> Tensor:
        """The vectors s (…, B, n) of what the network hands over as its state."""
        columns = (state,) if len(self.sizes) == 1 else state
        return torch.cat(
            [
                c.movedim(-3, -2).flatten(-2) if isinstance(c, Tensor) else torch.cat(c, -1)
                for c in columns
            ],
            -1,
        )

    def state(self, s: Tensor) -> Any:
        """What the network hands over as its state, from the vectors s (B, n)."""
        columns = tuple(
            torch.stack(parts) if len(set(sizes)) == 1 else tuple(parts)
            for parts, sizes in zip(self._parts(s), self.sizes, strict=True)
        )
        return columns[0] if len(columns) == 1 else columns

    def _parts(self, s: Tensor) -> list[list[Tensor]]:
        """s by state, by layer."""
        columns = s.split([sum(sizes) for sizes in self.sizes], -1)
        return [list(c.split(z, -1)) for c, z in zip(columns, self.sizes, strict=True)]


class _Cut(TorchFunctionMode):
    """Linear maps of the states, whose derivative is their diagonal, or zero.

    A map of what the step itself computes, such as U (r ⊙ h), is refused: cut, it would also lose
    what the weights before it change within the step.
    """

    def __init__(self, diagonal: bool, cell: Cell, x: Tensor, states: Sequence[Tensor]):
        super().__init__()
        self.diagonal, self.cell, self.x, self.states = diagonal, cell, x, states

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is not linear or args[0] is self.x:
            return function(*args, **(kwargs or {}))
        if not any(args[0] is state for state in self.states):
            raise InputError(
                f"a map of {type(self.cell).__name__} acts on neither the input nor a state."
            )
        value, weight = args[:2]
        constant = value.detach()
        z = linear(constant, *args[1:])
        rows, columns = weight.shape
        if not self.diagonal or rows % columns:
            return z
        own = weight.view(-1, columns, columns).diagonal(dim1=1, dim2=2)  # (blocks, H)
        return z + (own * (value - constant).unsqueeze(-2)).flatten(-2)  # adds 0, and diag(U)
