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
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.cells.lines import at, step_at
from elman.cells.options import Reading
from elman.cells.step_checks import under_autocast
from elman.compiler.masks import inside
from elman.compiler.modes import is_drawn_up, is_transformed
from elman.compiler.record import Unsupported
from elman.compiler.structure import Structure, structure
from elman.engines import reference
from elman.engines.call import Call, Result, first_step
from elman.engines.check import difference
from elman.engines.equations import System, solved
from elman.engines.exponent import largest_lyapunov_exponent
from elman.errors import InputError

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""The largest residual that is a solution, by type, for states of at most 1, else in proportion."""

GROWTH = 10.0
"""How much larger the largest residual may become by a correction."""

TRIES = 3
"""How often a correction is tried: with the Jacobians, with half of them, and without."""

LOOKED_AT = 1_000
"""Of how many steps the Lyapunov exponent is taken for a message."""


class NotSolved(InputError):
    """The iterations have not come to a solution."""


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
    return _known(cell, real).wrong


class _Known(NamedTuple):
    """What was found out about a cell.

    Attributes:
        reading: what its step read then.
        structure: of its Jacobians.
        wrong: why its steps side by side are others than one after the other, if they are.
    """

    reading: Reading
    structure: Structure
    wrong: str | None


_cells: weakref.WeakKeyDictionary[Cell, dict[Any, _Known]] = weakref.WeakKeyDictionary()


def _known(cell: Cell, real: torch.dtype) -> _Known:
    """What there is to know of ``cell``, found out again where its options have changed."""
    found, kind = _cells.setdefault(cell, {}), (real, vars(cell)["training"])
    known = found.get(kind)
    if known is None or not known.reading.holds(cell):
        reading = Reading(cell, Cell)
        read = structure(cell, real)

        def tried(weights: Mapping[str, Tensor], call: Call) -> Result:
            try:
                return _run(cell, weights, call, read, Newton())
            except NotSolved:  # as many iterations as steps suffice where rows are apart
                y, last, _ = reference.run(cell, weights, call)
                return Result(y * math.nan, last, (y, *last[1:]))

        try:
            wrong = difference(cell, tried, real)
        except NotSolved:  # on the way back
            wrong = "gradient"
        except (Unsupported, InputError):
            wrong = None  # the step itself is wrong: it says so when it runs
        why = wrong and (
            f"all steps side by side give another {wrong} than one after the other do"
            f"{at(step_at(cell))}: its step must treat every row of the batch by itself"
        )
        known = found[kind] = _Known(reading, read, why)
    return known


def run(cell: Cell, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run ``cell`` over all steps at once.

    Raises:
        NotSolved: the iterations do not converge.
        InputError: the cell does not keep to its contract.
    """
    options, read = _options.get() or Newton(), _known(cell, call.state[0].dtype).structure
    if torch.is_inference_mode_enabled():  # whose tensors no Jacobian can be taken at
        with torch.inference_mode(False), torch.no_grad():
            weights, call = _apart(dict(weights)), Call(*map(_apart, call))
            return _run(cell, weights, call, read, options)
    return _run(cell, weights, call, read, options)


def _apart(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {name: _apart(v) for name, v in value.items()}
    return tuple(map(_apart, value)) if isinstance(value, tuple) else value


def _run(
    cell: Cell, weights: Mapping[str, Tensor], call: Call, read: Structure, options: Newton
) -> Result:
    if not call.x.numel() or (call.lengths is not None and not bool(call.lengths.any())):
        return reference.run(cell, weights, call)
    real = next(iter(weights.values())).dtype
    if under_autocast(call.x.device):  # the cell computes in its weights' type
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
    with _uncast(x):
        with torch.no_grad():
            first_step(cell, weights, x[0], call.state)
        used = options.used(read, cell.state_sizes)
        system = System(cell, list(weights), read, used, x.shape[:2], alive, resets)
        states = _Solution.apply(system, options, x, *call.state, *call.start, *weights.values())
    y = states[0]
    if alive is not None:
        states = tuple(map(_Holding(alive), states, call.state))
    last = tuple(s[-1].clone() for s in states)
    if call.reverse:
        y, states = y.flip(0), tuple(s.flip(0) for s in states)
    return Result(y, last, tuple(states) if call.every_state else None)


def _uncast(x: Tensor) -> AbstractContextManager[Any]:
    """A block in which nothing is cast: a solution is to be exact."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if under_autocast(x.device) else nullcontext()


class _Holding:
    """Leaves states as they are where no step is taken."""

    def __init__(self, alive: Tensor):
        t = torch.arange(len(alive), device=alive.device).unsqueeze(1)
        self._latest = torch.where(alive, t, -1).cummax(0).values.unsqueeze(-1)  # step taken

    def __call__(self, values: Tensor, first: Tensor) -> Tensor:
        held = values.gather(0, self._latest.clamp(min=0).expand_as(values))
        return torch.where(self._latest >= 0, held, first)


class _Solution(torch.autograd.Function):
    """The states after every step, of the input, the first states, the starts and the weights."""

    @staticmethod
    def forward(
        ctx: Any, system: System, options: Newton, x: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        s, states, how = _solve(system, options, x, tensors)
        options.solved.append(how)
        ctx.system, ctx.options = system, options
        ctx.save_for_backward(s, x, *tensors)
        return tuple(states)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise InputError(
                "the newton engine gives first derivatives alone: use elman.engine('reference') "
                "for gradients of gradients."
            )
        wanted = ctx.needs_input_grad[2:]
        s, x, *tensors = ctx.saved_tensors
        with _uncast(x):
            found = _adjoint(ctx.system, ctx.options, (s, x, *tensors), gradients, wanted)
        return (None, None, *found)


def _solve(
    system: System, options: Newton, x: Tensor, tensors: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], Solved]:
    """The states that are read, all states, and how they were found."""
    tolerance = options.tolerance or TOLERANCE[x.dtype]
    s = x.new_zeros(*system.shape, system.structure.width)
    jacobians, damping, last = None, 0.0, (s, s, math.inf)
    for iteration in range(min(TRIES * len(x), options.iterations) + 1):
        with torch.enable_grad():
            steps = system.steps(s.requires_grad_(), x, *tensors)
        s, states = s.detach(), [state.detach() for state in steps.states]
        residual = system.read(states) - s
        largest, scale = _largest(residual), max(1.0, _largest(s))
        if largest <= tolerance * scale:
            name, kind = type(system.cell).__name__, system.used.kind
            return s, states, Solved(name, len(x), kind, iteration, largest)
        if not largest <= GROWTH * last[-1] and damping < 1:
            # Too far, along Jacobians that hold near by: from the same states again, with less.
            s, residual, _ = last
            damping = 1.0 if damping > options.damping else (1 + damping) / 2
        else:
            last, damping = (s, residual, largest), options.damping
            jacobians = system.jacobians(steps) if iteration else None
        if not math.isfinite(last[-1]):
            break
        del steps
        if jacobians is None or damping == 1:  # the first correction, and the last resort
            s = s + residual
        else:
            s = s + solved(jacobians * (1 - damping), residual)
    raise NotSolved(_why_not(system, x, tensors, iteration, largest, tolerance * scale))


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _adjoint(
    system: System, options: Newton, saved: Sequence[Tensor], gradients: Sequence[Tensor],
    wanted: Sequence[bool],
) -> list[Tensor | None]:  # fmt: skip
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
    tolerance = options.tolerance or TOLERANCE[s.dtype]
    if not all(
        math.isfinite(_largest(c)) for c in cotangents
    ):  # passed on, as backpropagation does
        cotangents = [torch.full_like(c, math.nan) for c in cotangents]
    for iteration in range(min(len(s), options.iterations) + 1):  # noqa: B007 # said below
        (carried,) = pull(cotangents, [s])
        adjoint = system.read(cotangents)
        residual = given - adjoint + (0 if carried is None else carried)
        largest, scale = _largest(residual), max(_largest(adjoint), _largest(given))
        if largest <= tolerance * scale or math.isnan(scale):
            found = iter(pull(cotangents, learned) if learned else ())
            return [next(found) if leaf.requires_grad else None for leaf in leaves]
        if not math.isfinite(largest):
            break
        if jacobians is None:  # those of the step after, transposed, from the last to the first
            whole = system.jacobians(steps)
            jacobians = torch.cat([torch.zeros_like(whole[:1]), whole[1:].flip(0)])
            jacobians = jacobians.transpose(2, 3)
        adjoint = adjoint + solved(jacobians, residual.flip(0)).flip(0)
        for k, part in zip(system.structure.read, _parts(system, adjoint), strict=True):
            cotangents[k] = part
    _, x, *tensors = saved
    raise NotSolved(
        _why_not(system, x, tensors, iteration, largest, tolerance * scale, "the gradient of ")
    )


def _parts(system: System, s: Tensor) -> Sequence[Tensor]:
    return s.split([system.cell.state_sizes[k] for k in system.structure.read], -1)


def _why_not(
    system: System, x: Tensor, tensors: Sequence[Tensor], iterations: int, residual: float,
    tolerance: float, what: str = "",
) -> str:  # fmt: skip
    """What to tell of a run that was not solved."""
    count = len(system.cell.state)
    weights = dict(zip(system.names, tensors[2 * count :], strict=True))
    bound = system.cell.bind(weights)
    exponent = largest_lyapunov_exponent(bound, x[:LOOKED_AT], tensors[:count])
    if exponent > 0:
        why = "its steps amplify, so they cannot be taken side by side: use elman.engine('auto')"
    else:
        why = "allow more iterations, damp it or use more of the Jacobian, or elman.engine('auto')"
    return (
        f"Newton's method has not solved {what}{type(system.cell).__name__} over {len(x):,} steps: "
        f"after {iterations} iterations the largest residual is {residual:.1e}, expected at most "
        f"{tolerance:.1e}, and the largest Lyapunov exponent is {exponent:+.2f} nats a step: "
        f"{why}."
    )
