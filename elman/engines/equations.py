"""The equations of a recurrence, s_t = f(s_{t−1}, x_t) for all t: every step side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.compiler.matrix_scan import matrix_scan
from elman.compiler.recurrence import previous
from elman.compiler.structure import Structure

AT_ONCE = 16
"""How many rows of the Jacobians are computed together where few of their numbers are kept."""


class Steps(NamedTuple):
    """All steps taken side by side, R of T · B, from given states.

    Attributes:
        before, after: the states that are read (R, n), before each step and after it.
        states: all states after it, (T, B, size) for each; zeros where no step is taken.
    """

    before: Tensor
    after: Tensor
    states: list[Tensor]


@dataclass
class System:
    """The equations of one run, in the order in which its steps are taken.

    Attributes:
        cell: whose step it is.
        names: of its weights.
        structure: of its Jacobians.
        used: what is used of them.
        shape: T and B.
        alive: (T, B), whether a step is taken; None where all are.
        resets: (T, B), whether the state goes back to its start before the step; or None.
    """

    cell: Cell
    names: list[str]
    structure: Structure
    used: Structure
    shape: torch.Size
    alive: Tensor | None
    resets: Tensor | None

    def steps(self, s: Tensor, x: Tensor, *tensors: Tensor) -> Steps:
        """Take every step, from the states that are read, s (T, B, n), of the steps before."""
        count, read = len(self.cell.state), self.structure.read
        weights = dict(zip(self.names, tensors[2 * count :], strict=True))
        first, start = (
            torch.cat([given[k] for k in read] or [s[0]], -1)
            for given in (tensors[:count], tensors[count : 2 * count])
        )
        before = previous(s, first, False)
        if self.alive is not None:
            before = torch.where(self._begins(s).unsqueeze(-1), first, before)
        if self.resets is not None:
            before = torch.where(self.resets.unsqueeze(-1), start, before)
        before = self._rows(before)
        sizes = self.cell.state_sizes
        given = [before.new_zeros(len(before), size) for size in sizes]  # what is not read
        for k, part in zip(read, before.split([sizes[k] for k in read], -1), strict=False):
            given[k] = part
        new = self.cell.bind(weights)(self._rows(x), *given)
        after = torch.cat([new[k] for k in read] or [before], -1)
        return Steps(before, after, [self._spread(rows) for rows in new])

    def read(self, states: Sequence[Tensor]) -> Tensor:
        """Those of the states that are read, side by side."""
        kept = [states[k] for k in self.structure.read]
        return torch.cat(kept, -1) if kept else states[0][..., :0]

    def jacobians(self, steps: Steps) -> Tensor:
        """∂s_t/∂s_{t−1} (T, B, k, k, U) as far as it is used; zero where a sequence begins."""
        width, units = self.structure.width, self.used.units
        if self.structure.units == units:
            rows = self._whole_rows(steps, width // units)
        else:
            rows = self._kept_rows(steps, width // units)
        found = self._spread(rows)
        begins = self._begins(found)
        if self.resets is not None:
            begins = begins | self.resets
        return found.masked_fill_(begins[..., None, None, None], 0)

    def _whole_rows(self, steps: Steps, k: int) -> Tensor:
        """One pull for each of the k numbers of a unit: no other unit is in the sum."""
        units = self.used.units
        eye = torch.eye(k, dtype=steps.before.dtype, device=steps.before.device)
        pulled = _pull(steps, eye.repeat_interleave(units, 1))
        return pulled.unflatten(-1, (k, units)).movedim(0, 1)

    def _kept_rows(self, steps: Steps, k: int) -> Tensor:
        """One pull for each number of state, of which what is its unit's is kept."""
        units = self.used.units
        eye = torch.eye(k * units, dtype=steps.before.dtype, device=steps.before.device)
        kept = []
        for numbers in torch.arange(k * units, device=eye.device).split(AT_ONCE):
            pulled = _pull(steps, eye[numbers]).unflatten(-1, (k, units))
            own = (numbers % units).view(-1, 1, 1, 1).expand(*pulled.shape[:3], 1)
            kept.append(pulled.gather(-1, own).squeeze(-1))
        return torch.cat(kept).unflatten(0, (k, units)).permute(2, 0, 3, 1)

    def _begins(self, like: Tensor) -> Tensor:
        """(T, B), whether no step was taken before this one."""
        alive = like.new_ones(self.shape, dtype=torch.bool) if self.alive is None else self.alive
        return torch.cat([torch.ones_like(alive[:1]), ~alive[:-1]])

    def _rows(self, values: Tensor) -> Tensor:
        return values.flatten(0, 1) if self.alive is None else values[self.alive]

    def _spread(self, rows: Tensor) -> Tensor:
        if self.alive is None:
            return rows.unflatten(0, self.shape)
        whole = rows.new_zeros(*self.alive.shape, *rows.shape[1:])
        return whole.index_put((self.alive,), rows)


def _pull(steps: Steps, cotangents: Tensor) -> Tensor:
    """(C, R, n): what reaches the states before each step of C cotangents (C, n) after it."""
    rows = cotangents.unsqueeze(1).expand(-1, *steps.after.shape)
    found = None
    if steps.after.requires_grad:
        (found,) = torch.autograd.grad(
            steps.after, steps.before, rows, retain_graph=True, allow_unused=True,
            is_grads_batched=True,
        )  # fmt: skip
    return torch.zeros_like(rows) if found is None else found.detach()


def solved(jacobians: Tensor, residual: Tensor) -> Tensor:
    """The solution of the linear system: all δ_t = J_t δ_{t−1} + r_t (T, B, n)."""
    k, units = jacobians.shape[-2:]
    return matrix_scan(jacobians, residual.unflatten(-1, (k, units))).flatten(-2)
