"""The ``newton`` engine: any recurrence with all its steps at once, by Newton's method.

The states of all steps solve s_t = f(s_{t−1}, x_t), one system of equations. Each iteration calls
the cell once, for all steps side by side, and solves the system linearised, δ_t = J_t δ_{t−1} + r_t
with r_t = f(s_{t−1}, x_t) − s_t, by one scan over time (Lim et al., 2024; Gonzalez et al., 2024).
Whatever J is, the first k states are those of the loop after k iterations; and what is returned has
been put into f once more. The gradient is another such system, linear in itself.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.cells.step_checks import under_autocast
from elman.compiler.masks import inside
from elman.compiler.matrix_scan import matrix_scan
from elman.compiler.modes import is_drawn_up, is_transformed
from elman.compiler.record import Unsupported
from elman.compiler.recurrence import previous
from elman.compiler.structure import Structure, structure
from elman.engines import reference
from elman.engines.call import Call, Result, first_step
from elman.engines.check import difference
from elman.engines.exponent import largest_lyapunov_exponent
from elman.errors import InputError, one_line

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""The largest residual that is a solution, by type, for states of at most 1, else in proportion."""

LOOKED_AT = 1_000
"""Of how many steps the Lyapunov exponent is taken for a message."""

AT_ONCE = 16
"""How many rows of the Jacobians are computed together where few of their numbers are kept."""


class Solved(NamedTuple):
    """How one call was solved.

    Attributes:
        cell: the name of the cell's class.
        steps: T.
        jacobian: ``"diagonal"``, ``"block"``, ``"dense"``, or ``"none"`` where no state is read.
        iterations: how many times the states were corrected.
        residual: max |f(s_{t−1}, x_t) − s_t| of the states that were returned.
    """

    cell: str
    steps: int
    jacobian: str
    iterations: int
    residual: float


class Newton:
    """How the ``newton`` engine solves within a ``with`` block, and what it found there::

        with elman.engine("newton"), elman.Newton(jacobian="diagonal") as newton:
            y, state = rnn(x)
        newton.solved  # [Solved(cell='GRU', steps=4096, iterations=9, …)]

    Args:
        jacobian: how much of the Jacobians is used: ``"dense"``, n × n numbers a step for n of
            state; ``"block"``, of each unit the k × k that are its own; ``"diagonal"``. With less
            than the cell has, memory and time of an iteration shrink and more iterations are
            needed; the solution is the same. By default all that is not zero.
        damping: J is multiplied by 1 − damping, so that a correction dies out along time: for
            recurrences whose steps amplify on the way to a solution. 0 by default.
        tolerance: the largest residual; 1e-12 in float64 and 1e-5 in float32 by default, times
            the largest state where that is above 1.
        iterations: after how many to give up; T of them always suffice, save for rounding.

    Attributes:
        solved: a :class:`Solved` for each layer and direction that has run, in order.

    Raises:
        InputError: an argument is none of these.
    """

    def __init__(
        self,
        *,
        jacobian: str | None = None,
        damping: float = 0.0,
        tolerance: float | None = None,
        iterations: int = 100,
    ):
        if jacobian not in (None, "diagonal", "block", "dense"):
            raise InputError(
                f"jacobian must be diagonal, block, dense or None, received {jacobian!r}."
            )
        if not 0 <= damping <= 1:
            raise InputError(f"damping must lie between 0 and 1, received {damping!r}.")
        if tolerance is not None and not tolerance > 0:
            raise InputError(f"tolerance must be above 0, received {tolerance!r}.")
        if iterations < 1:
            raise InputError(f"iterations must be at least 1, received {iterations!r}.")
        self.jacobian, self.damping = jacobian, damping
        self.tolerance, self.iterations = tolerance, iterations
        self.solved: list[Solved] = []
        self._tokens: list[Token[Newton | None]] = []

    def __enter__(self) -> Self:
        self._tokens.append(_options.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        _options.reset(self._tokens.pop())

    def used(self, whole: Structure, sizes: Sequence[int]) -> Structure:
        """What is used of Jacobians of this structure, for states of these sizes."""
        units = {
            "dense": min(1, whole.width),
            "block": max(whole.units, math.gcd(*(sizes[k] for k in whole.read))),
            "diagonal": whole.width,
        }
        return whole._replace(units=units.get(self.jacobian or "", whole.units))


_options: ContextVar[Newton | None] = ContextVar("elman_newton", default=None)


def unsupported(cell: Cell, call: Call) -> str | None:
    """Why this engine cannot take this call, or None where it can."""
    if is_transformed():
        return "it does not run inside torch.func or in forward mode"
    if is_drawn_up():
        return "how often it iterates depends on the numbers, so that no program can be made of it"
    real = call.state[0].dtype
    if real not in TOLERANCE:
        return f"it solves in float32 and float64, not in {real}"
    return _differs(cell, real)


_checked: weakref.WeakKeyDictionary[Cell, dict[torch.dtype, str | None]]
_checked = weakref.WeakKeyDictionary()
"""By cell and type of numbers, what is wrong with its steps side by side."""


def _differs(cell: Cell, real: torch.dtype) -> str | None:
    """Why steps side by side are other than one after the other, which is found out once."""
    found = _checked.setdefault(cell, {})
    if real not in found:
        try:
            wrong = difference(cell, partial(_run, cell, options=Newton()), real)
        except (Unsupported, InputError):
            wrong = None  # the step itself is wrong: it says so when it runs
        found[real] = wrong and (
            f"all steps side by side give another {wrong} than one after the other do: "
            "its step must treat every row of the batch by itself"
        )
    return found[real]


def run(cell: Cell, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run ``cell`` over all steps at once.

    Raises:
        InputError: the iterations do not converge, or the cell does not keep to its contract.
    """
    options = _options.get() or Newton()
    if torch.is_inference_mode_enabled():  # whose tensors no Jacobian can be taken at
        with torch.inference_mode(False), torch.no_grad():
            weights, call = _apart(dict(weights)), Call(*map(_apart, call))
            return _run(cell, weights, call, options)
    return _run(cell, weights, call, options)


def _apart(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {name: _apart(v) for name, v in value.items()}
    return tuple(map(_apart, value)) if isinstance(value, tuple) else value


def _run(cell: Cell, weights: Mapping[str, Tensor], call: Call, options: Newton) -> Result:
    if not call.x.numel() or (call.lengths is not None and not bool(call.lengths.any())):
        return reference.run(cell, weights, call)
    real, device = next(iter(weights.values())).dtype, call.x.device.type
    cast = under_autocast(call.x.device)
    if cast:  # the cell computes in its weights' type, as on the native engine
        call = call.cast(real)
    call.check_types(real)
    x = call.x if call.noise is None else torch.cat([call.x, call.noise.to(real)], -1)
    alive = None if call.lengths is None else inside(len(x), call.lengths).squeeze(-1)
    resets = call.resets
    if call.reverse:
        if resets is not None:
            # The boundary between two steps belongs, read backwards, to the earlier one.
            resets = torch.cat([resets[1:], torch.zeros_like(resets[:1])]).flip(0)
        x, alive = x.flip(0), None if alive is None else alive.flip(0)
    with torch.autocast(device, enabled=False) if cast else nullcontext():
        with torch.no_grad():
            first_step(cell, weights, x[0], call.state)
        system = _System(
            cell, list(weights), structure_of(cell, real), options, x.shape[:2], alive, resets
        )
        states = _Solution.apply(system, x, *call.state, *call.start, *weights.values())
    y = states[0]
    if alive is not None:
        states = tuple(map(_Holding(alive), states, call.state))
    last = tuple(s[-1].clone() for s in states)
    if call.reverse:
        y, states = y.flip(0), tuple(s.flip(0) for s in states)
    return Result(y, last, tuple(states) if call.every_state else None)


class _Holding:
    """Leaves states as they are where no step is taken."""

    def __init__(self, alive: Tensor):
        t = torch.arange(len(alive), device=alive.device).unsqueeze(1)
        self._latest = torch.where(alive, t, -1).cummax(0).values.unsqueeze(-1)  # step taken

    def __call__(self, values: Tensor, first: Tensor) -> Tensor:
        held = values.gather(0, self._latest.clamp(min=0).expand_as(values))
        return torch.where(self._latest >= 0, held, first)


_structures: weakref.WeakKeyDictionary[Cell, dict[torch.dtype, Structure]]
_structures = weakref.WeakKeyDictionary()


def structure_of(cell: Cell, real: torch.dtype) -> Structure:
    """:func:`elman.compiler.structure.structure`, found out once."""
    found = _structures.setdefault(cell, {})
    if real not in found:
        found[real] = structure(cell, real)
    return found[real]


class _Steps(NamedTuple):
    """All steps taken side by side, R of T · B, from given states.

    Attributes:
        before, after: the states that are read (R, n), before each step and after it.
        states: all states after it, (T, B, size) for each; zeros where no step is taken.
    """

    before: Tensor
    after: Tensor
    states: list[Tensor]


@dataclass
class _System:
    """The equations of one run, in the order in which its steps are taken.

    Attributes:
        cell: whose step it is.
        names: of its weights.
        structure: of its Jacobians.
        options: how they are solved.
        shape: T and B.
        alive: (T, B), whether a step is taken; None where all are.
        resets: (T, B), whether the state goes back to its start before the step; or None.
    """

    cell: Cell
    names: list[str]
    structure: Structure
    options: Newton
    shape: torch.Size
    alive: Tensor | None
    resets: Tensor | None

    def steps(self, s: Tensor, x: Tensor, *tensors: Tensor) -> _Steps:
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
        return _Steps(before, after, [self._spread(rows) for rows in new])

    def read(self, states: Sequence[Tensor]) -> Tensor:
        """Those of the states that are read, side by side."""
        kept = [states[k] for k in self.structure.read]
        return torch.cat(kept, -1) if kept else states[0][..., :0]

    def jacobians(self, steps: _Steps) -> Tensor:
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

    @property
    def used(self) -> Structure:
        """What is used of the Jacobians."""
        return self.options.used(self.structure, self.cell.state_sizes)

    def _whole_rows(self, steps: _Steps, k: int) -> Tensor:
        """One pull for each of the k numbers of a unit: no other unit is in the sum."""
        units = self.used.units
        eye = torch.eye(k, dtype=steps.before.dtype, device=steps.before.device)
        pulled = _pull(steps, eye.repeat_interleave(units, 1))
        return pulled.unflatten(-1, (k, units)).movedim(0, 1)

    def _kept_rows(self, steps: _Steps, k: int) -> Tensor:
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


def _pull(steps: _Steps, cotangents: Tensor) -> Tensor:
    """(C, R, n): what reaches the states before each step of C cotangents (C, n) after it."""
    rows = cotangents.unsqueeze(1).expand(-1, *steps.after.shape)
    found = None
    if steps.after.requires_grad:
        (found,) = torch.autograd.grad(
            steps.after, steps.before, rows, retain_graph=True, allow_unused=True,
            is_grads_batched=True,
        )  # fmt: skip
    return torch.zeros_like(rows) if found is None else found.detach()


def _scanned(jacobians: Tensor, residual: Tensor) -> Tensor:
    """All δ_t = J_t δ_{t−1} + r_t (T, B, n)."""
    k, units = jacobians.shape[-2:]
    return matrix_scan(jacobians, residual.unflatten(-1, (k, units))).flatten(-2)


class _Solution(torch.autograd.Function):
    """The states after every step, of the input, the first states, the starts and the weights."""

    @staticmethod
    def forward(ctx: Any, system: _System, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        s, states, solved = _solve(system, x, tensors)
        system.options.solved.append(solved)
        ctx.system = system
        ctx.save_for_backward(s, x, *tensors)
        return tuple(states)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise InputError(
                "the newton engine gives first derivatives alone: use elman.engine('reference') "
                "for gradients of gradients."
            )
        wanted = ctx.needs_input_grad[1:]
        return (None, *_adjoint(ctx.system, ctx.saved_tensors, gradients, wanted))


def _solve(
    system: _System, x: Tensor, tensors: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], Solved]:
    """The states that are read, all states, and how they were found."""
    options, real = system.options, x.dtype
    tolerance = options.tolerance or TOLERANCE[real]
    s = x.new_zeros(*system.shape, system.structure.width)
    for iteration in range(min(len(x), options.iterations) + 1):
        with torch.enable_grad():
            s = s.detach().requires_grad_()
            steps = system.steps(s, x, *tensors)
        s, states = s.detach(), [state.detach() for state in steps.states]
        residual = system.read(states) - s
        largest, scale = _largest(residual), max(1.0, _largest(s))
        if largest <= tolerance * scale:
            name, kind = type(system.cell).__name__, system.used.kind
            return s, states, Solved(name, len(x), kind, iteration, largest)
        if not math.isfinite(largest):
            break
        jacobians = system.jacobians(steps)
        if options.damping:
            jacobians *= 1 - options.damping
        s = s + _scanned(jacobians, residual)
        del steps, jacobians
    raise InputError(_why_not(system, x, tensors, iteration, largest, tolerance * scale))


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _adjoint(
    system: _System, saved: Sequence[Tensor], gradients: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of x, first states, starts and weights, of those of all states.

    λ_{t−1} = g_{t−1} + J_tᵀ λ_t is linear: with the whole J one scan from the last step to the
    first solves it, with a part of it as many as are needed. One pull of λ gives the gradients.
    """
    s, *inputs = saved
    with torch.enable_grad():
        s = s.detach().requires_grad_()
        leaves = [t.detach().requires_grad_(w) for t, w in zip(inputs, wanted, strict=True)]
        steps = system.steps(s, *leaves)
    pairs = [(k, state) for k, state in enumerate(steps.states) if state.requires_grad]
    learned = [leaf for leaf in leaves if leaf.requires_grad]
    if not pairs:
        return [None] * len(leaves)

    def pull(cotangents: Sequence[Tensor], to: Sequence[Tensor]) -> Sequence[Tensor | None]:
        return torch.autograd.grad(
            [state for _, state in pairs], to, [cotangents[k] for k, _ in pairs],
            retain_graph=True, allow_unused=True,
        )  # fmt: skip

    cotangents, jacobians = list(gradients), None
    given = system.read(cotangents)
    tolerance = system.options.tolerance or TOLERANCE[s.dtype]
    for iteration in range(min(len(s), system.options.iterations) + 1):
        (carried,) = pull(cotangents, [s])
        adjoint = system.read(cotangents)
        residual = given - adjoint + (0 if carried is None else carried)
        largest, scale = _largest(residual), max(_largest(adjoint), _largest(given))
        if largest <= tolerance * scale:
            found = iter(pull(cotangents, learned) if learned else ())
            return [next(found) if leaf.requires_grad else None for leaf in leaves]
        if not math.isfinite(largest):
            break
        if jacobians is None:  # those of the step after, transposed, from the last to the first
            whole = system.jacobians(steps)
            jacobians = torch.cat([torch.zeros_like(whole[:1]), whole[1:].flip(0)])
            jacobians = jacobians.transpose(2, 3)
        adjoint = adjoint + _scanned(jacobians, residual.flip(0)).flip(0)
        for k, part in zip(system.structure.read, _parts(system, adjoint), strict=True):
            cotangents[k] = part
    _, x, *tensors = saved
    raise InputError(
        _why_not(system, x, tensors, iteration, largest, tolerance * scale, "the gradient of ")
    )


def _parts(system: _System, s: Tensor) -> Sequence[Tensor]:
    return s.split([system.cell.state_sizes[k] for k in system.structure.read], -1)


def _why_not(
    system: _System, x: Tensor, tensors: Sequence[Tensor], iterations: int, residual: float,
    tolerance: float, what: str = "",
) -> str:  # fmt: skip
    """What to tell of a run that was not solved."""
    count = len(system.cell.state)
    weights = dict(zip(system.names, tensors[2 * count :], strict=True))
    bound = system.cell.bind(weights)
    exponent = largest_lyapunov_exponent(bound, x[:LOOKED_AT], tensors[:count])
    if exponent > 0:
        why = "its steps amplify, so that they cannot be taken side by side"
    else:
        why = "allow more iterations, damp it, or use more of the Jacobian"
    return (
        f"Newton's method has not solved {what}{type(system.cell).__name__} over {len(x):,} steps: "
        f"after {iterations} iterations the largest residual is {residual:.1e}, expected at most "
        f"{tolerance:.1e}, and the largest Lyapunov exponent is {exponent:+.2f} nats a step: "
        f"{why}; or use elman.engine('auto')."
    )
