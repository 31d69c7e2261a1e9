"""Where a gradient goes: its norm by lag, and whether it vanishes, explodes or holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from elman.errors import InputError
from elman.layers import Recurrent
from elman.lens import jacobians as jac
from elman.lens.unrolled import Steps, Unrolled, unrolled
from elman.plots.gradient_flow import draw_flow


@dataclass(frozen=True)
class Verdict:
    """What becomes of a gradient on its way back.

    Attributes:
        kind: ``"vanishes"``, ``"explodes"`` or ``"holds"``.
        lag: the first lag at which the norm is below the threshold times that at lag 0, or above
            its reciprocal; where it holds, the last lag that was looked at.
        rate: γ, the mean factor a step: (norm at the last lag / norm at lag 0)^(1 / last lag), of
            the lags at which anything is left.
    """

    kind: str
    lag: int
    rate: float

    @classmethod
    def of(cls, norms: Tensor, threshold: float) -> Verdict:
        """The verdict on norms by lag (lags)."""
        relative = relative_to_start(norms)
        left = int(relative.nonzero().max()) if bool(relative.any()) else 0
        rate = float(relative[left]) ** (1 / left) if left else float(len(norms) == 1)
        for lag, value in enumerate(relative.tolist()):
            if value < threshold:
                return cls("vanishes", lag, rate)
            if value > 1 / threshold:
                return cls("explodes", lag, rate)
        return cls("holds", len(norms) - 1, rate)

    def __str__(self) -> str:
        return f"{self.summary} (× {self.rate:.3g} a step)"

    @property
    def summary(self) -> str:
        """``"vanishes at lag 12"``, ``"holds to lag 99"``."""
        return f"{self.kind} {'to' if self.kind == 'holds' else 'at'} lag {self.lag}"


@dataclass(frozen=True)
class CellFlow:
    """The gradient in one layer, in one direction.

    Attributes:
        layer: from 0.
        direction: ``"forward"`` or ``"reverse"``.
        norms: ‖∂L_t/∂s_k‖ by lag t − k = 0, 1, … (lags), with s_k all states after step k as one
            vector; the mean over the sequences of the batch; float64.
        by_state: the same for each state on its own, by name.
        verdict: what becomes of ``norms``.
        jacobians: ∂s_k/∂s_{k−1} at each step of the first sequence up to t (steps, n, n), in the
            order of time; None where they were not asked for, as the two below.
        singular_lags: the lags l of ``singular_values``.
        singular_values: of ∂s_t/∂s_{t−l}, the product of l Jacobians, descending (lags, n).
        lyapunov: the Lyapunov exponents (n), nats a step, descending.
    """

    layer: int
    direction: str
    norms: Tensor
    by_state: dict[str, Tensor]
    verdict: Verdict
    jacobians: Tensor | None = None
    singular_lags: Sequence[int] = ()
    singular_values: Tensor | None = None
    lyapunov: Tensor | None = None

    @property
    def relative(self) -> Tensor:
        """``norms`` divided by that at lag 0; all zero where that is zero."""
        return relative_to_start(self.norms)

    @property
    def name(self) -> str:
        """``"layer 0"``, or ``"layer 0 reverse"``."""
        return f"layer {self.layer}" + ("" if self.direction == "forward" else " reverse")


@dataclass(frozen=True)
class GradientFlow:
    """Where the gradient of a loss at one step goes: what :func:`gradient_flow` finds.

    ``str`` gives a table, :meth:`plot` a picture, :meth:`to_json` plain numbers.

    Attributes:
        at: t, the step of the loss; None where the sequences differ in it.
        threshold: below which a norm, relative to that at lag 0, has vanished.
        cells: the flow in each layer, in each layer by direction.
    """

    at: int | None
    threshold: float
    cells: tuple[CellFlow, ...]

    def __str__(self) -> str:
        where = "its last step" if self.at is None else f"step {self.at}"
        lines = [f"gradient of the loss at {where}, by lag", ""]
        lags = _shown_lags(max(len(cell.norms) for cell in self.cells))
        lines.append(f"{'':<16}" + "".join(f"{lag:>10}" for lag in lags) + "   verdict")
        for cell in self.cells:
            rows: list[tuple[str, Tensor, str]] = [(cell.name, cell.norms, str(cell.verdict))]
            if len(cell.by_state) > 1:
                rows += [(f"  {name}", norms, "") for name, norms in cell.by_state.items()]
            for name, norms, verdict in rows:
                row = [f"{float(norms[k]):>10.2e}" if k < len(norms) else " " * 10 for k in lags]
                lines.append(f"{name:<16}{''.join(row)}   {verdict}".rstrip())
        for cell in self.cells:
            if cell.lyapunov is not None:
                lines += ["", *_spectrum(cell)]
        return "\n".join(lines)

    def plot(self, path: Path | str, title: str = "") -> None:
        """Draw the norms by lag, and the singular values where there are, into a PNG, SVG or PDF.

        Args:
            path: the file.
            title: of the picture, such as the network and what it read.

        Raises:
            InputError: the file's name ends in none of these.
        """
        draw_flow(self, Path(path), title)

    def to_json(self) -> dict[str, Any]:
        """The figures as plain numbers; what is not finite is None."""
        return {
            "at": self.at,
            "threshold": self.threshold,
            "cells": [
                {
                    "layer": cell.layer,
                    "direction": cell.direction,
                    "verdict": cell.verdict.kind,
                    "lag": cell.verdict.lag,
                    "rate": plain(cell.verdict.rate),
                    "norms": plain(cell.norms),
                    "by_state": {name: plain(norms) for name, norms in cell.by_state.items()},
                    "singular_lags": list(cell.singular_lags),
                    "largest_singular_values": None
                    if cell.singular_values is None
                    else plain(cell.singular_values[:, 0]),
                    "lyapunov": None if cell.lyapunov is None else plain(cell.lyapunov),
                }
                for cell in self.cells
            ],
        }


def gradient_flow(
    network: Recurrent,
    x: Tensor,
    state: Any = None,
    *,
    loss: Callable[[Tensor], Tensor] | None = None,
    at: int = -1,
    threshold: float = 1e-3,
    jacobians: bool = True,
) -> GradientFlow:
    """Where the gradient of a loss at one step goes, back in time and down the layers.

    For a loss L_t that reads the output y_t, finds ‖∂L_t/∂s_k‖ for every k ≤ t, with s_k the
    states of a layer after step k, as the next step reads them. Going back, δ_k = J_{k+1}ᵀ δ_{k+1}
    with the Jacobian J_k = ∂s_k/∂s_{k−1} of a step; so the product of the Jacobians rules it, which
    grows or shrinks about as γ^{t−k} (Bengio et al., 1994; Pascanu et al., 2013).

    The network runs on the reference engine, as in evaluation; nothing of it is changed.

    Args:
        network: any :class:`elman.Recurrent`.
        x: its input, as its forward takes it, in one tensor of sequences of equal length.
        state: the state to start from; the network's start where it is None.
        loss: from y_t (B, S · directions), or (S · directions) without a batch, to a scalar; the
            sum of its entries where it is None. A mean over the batch divides the norms by B.
        at: t, the step whose output the loss reads, from 0, or from the end if negative.
        threshold: the gradient has vanished where its norm is below this share of that at lag 0,
            and has exploded where it is above the reciprocal.
        jacobians: also find the step Jacobians of the first sequence, the singular values of their
            products and the Lyapunov exponents: n³ operations a step, for n numbers of state.

    Returns:
        The flow in each layer and direction. In the reverse direction the lag is k − t.

    Raises:
        InputError: an argument has a value that cannot be used, or the loss is no finite scalar
            that depends on the output.
    """
    if not isinstance(network, Recurrent):
        raise InputError(
            f"the network must be an elman.Recurrent, such as elman.LSTM(28, 256), received "
            f"{type(network).__name__}."
        )
    if isinstance(x, PackedSequence):
        raise InputError(
            "x must be a tensor, received a PackedSequence: give one length at a time."
        )
    check_threshold(threshold)
    with unrolled(network) as run:
        network(x, state)
        if not run.y.numel():
            raise InputError(f"x has nothing to look at, received the shape {tuple(x.shape)}.")
        steps = run.y.shape[run.time]
        if not -steps <= at < steps:
            raise InputError(f"at must be one of the {steps} steps of x, received {at}.")
        t = at % steps
        value = (loss or Tensor.sum)(run.y.select(run.time, t))
        _check_loss(value)
        deltas = _deltas(run, value)
    last = torch.full((run.cells[0].inputs[0].shape[0],), t)
    cells = [
        _cell_flow(cell, delta, last, threshold, jacobians)
        for cell, delta in zip(run.cells, deltas, strict=True)
    ]
    return GradientFlow(t, threshold, tuple(cells))


def flow_of_last_step(run: Unrolled, loss: Tensor, threshold: float = 1e-3) -> GradientFlow:
    """The flow from the last step of each sequence whose output ``loss`` reads.

    ``loss`` is that of a whole window, Σ_t L_t; its gradient with respect to y_t, held fixed,
    stands for L_t. A loss that does not read the output but the last state is taken as it is.

    Args:
        run: the run of the network that ``loss`` was computed from.
        loss: a scalar.
        threshold: as in :func:`gradient_flow`.
    """
    given = None
    if isinstance(run.y, Tensor):  # a PackedSequence has no axis of time
        (given,) = torch.autograd.grad(loss, run.y, retain_graph=True, allow_unused=True)
    steps = len(run.cells[0].inputs)
    last = torch.full((run.cells[0].inputs[0].shape[0],), steps - 1)
    if given is not None:
        rows = given.unsqueeze(1) if given.dim() == 2 else given.transpose(0, run.time)
        read = (rows != 0).any(-1).cpu()  # (T, B)
        last = steps - 1 - read.int().flip(0).argmax(0)
        here = torch.arange(steps).unsqueeze(1) == last
        only = rows * here.unsqueeze(-1).to(rows)
        loss = (run.y * only.transpose(0, run.time).reshape(run.y.shape)).sum()
    deltas = _deltas(run, loss)
    cells = [
        _cell_flow(cell, delta, last, threshold, False)
        for cell, delta in zip(run.cells, deltas, strict=True)
    ]
    same = int(last[0]) if bool((last == last[0]).all()) else None
    return GradientFlow(same, threshold, tuple(cells))


def relative_to_start(norms: Tensor) -> Tensor:
    """Norms by lag, divided by the first; all zero where that is zero."""
    return norms / norms[0] if norms[0] > 0 else torch.zeros_like(norms)


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that is no share.

    Raises:
        InputError: it lies outside (0, 1).
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold must lie between 0 and 1, received {threshold!r}.")


def plain(value: Any) -> Any:
    """Numbers for JSON, with None for those that are not finite."""
    if isinstance(value, Tensor):
        return [plain(float(v)) for v in value]
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _check_loss(value: Any) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"loss must give a scalar, such as y.square().sum(), received {shape}.")
    if not value.isfinite():
        raise InputError(f"the loss is {float(value.detach())}: expected a finite one; look at x.")
    if not value.requires_grad:
        raise InputError("the loss does not depend on y: compute it from what loss receives.")


def _deltas(run: Unrolled, loss: Tensor) -> list[list[tuple[Tensor, ...]]]:
    """∂L/∂s_k by cell, step and state."""
    nudges = [nudge for cell in run.cells for step in cell.nudges for nudge in step]
    found = iter(torch.autograd.grad(loss, nudges, allow_unused=True, materialize_grads=True))
    return [[tuple(next(found) for _ in step) for step in cell.nudges] for cell in run.cells]


def _cell_flow(
    cell: Steps,
    deltas: list[tuple[Tensor, ...]],
    last: Tensor,
    threshold: float,
    jacobians: bool,
) -> CellFlow:
    """The flow in one cell; ``last`` (B) is the step of each sequence's loss."""
    steps = len(deltas)
    own = steps - 1 - last if cell.reverse else last  # in the cell's own order
    columns = {
        name: torch.stack(column).cpu().double().norm(dim=-1)  # (T, B)
        for name, column in zip(cell.cell.state, zip(*deltas, strict=True), strict=True)
    }
    by_state = {name: _by_lag(column, own) for name, column in columns.items()}
    together = torch.stack(list(columns.values())).norm(dim=0)
    norms = _by_lag(together, own)
    flow = CellFlow(cell.layer, cell.direction, norms, by_state, Verdict.of(norms, threshold))
    upto = int(own[0])
    if not jacobians or upto == 0:
        return flow
    # The first step's Jacobian leads to the state before the sequence, where nothing is measured.
    states = [state[1 : upto + 1, 0] for state in cell.states]
    found = jac.step_jacobians(cell.cell, cell.x[1 : upto + 1, 0], states)
    lags, values = jac.singular_values(found)
    exponents = jac.lyapunov_exponents(found, discard=upto // 4)
    return CellFlow(
        cell.layer, cell.direction, norms, by_state, flow.verdict, found, lags, values, exponents
    )


def _by_lag(column: Tensor, own: Tensor) -> Tensor:
    """The mean of the norms (T, B) over the sequences, by lag before step ``own`` (B)."""
    rows = [column[torch.arange(int(t), -1, -1), b] for b, t in enumerate(own)]  # each by lag
    lags = max(len(row) for row in rows)
    means = [torch.stack([row[k] for row in rows if k < len(row)]).mean() for k in range(lags)]
    return torch.stack(means)


def _shown_lags(lags: int) -> list[int]:
    """0, 1, 2, 5, 10, 20, 50, … and the last."""
    shown = [b * 10**k for k in range(9) for b in (1, 2, 5)]
    inside = [lag for lag in shown if lag < lags - 1]
    return [0, *inside, lags - 1] if lags > 1 else [0]


def _spectrum(cell: CellFlow) -> list[str]:
    assert cell.singular_values is not None and cell.lyapunov is not None
    largest = cell.singular_values[:, 0].tolist()
    first, last = cell.singular_lags[0], cell.singular_lags[-1]
    exponents = ", ".join(f"{v:.3f}" for v in cell.lyapunov[:3].tolist())
    more = ", …" if len(cell.lyapunov) > 3 else ""
    return [
        f"{cell.name}: largest singular value {largest[0]:.3g} over {first} step, "
        f"{largest[-1]:.3g} over {last}",
        f"{'':<{len(cell.name)}}  Lyapunov exponents {exponents}{more} nats a step "
        f"(× {math.exp(min(700.0, float(cell.lyapunov[0]))):.3g})",
    ]
