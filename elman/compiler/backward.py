"""The gradient of the loop over time on tensors: its backward pass, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from elman.compiler import targets
from elman.compiler.compiled import Compiled
from elman.compiler.differentiate import Pair
from elman.compiler.ir import Buffer
from elman.compiler.kernel import BEFORE, Shape, State, place
from elman.compiler.masks import inside
from elman.compiler.memory import all_plain, plain, resolved


def run_backward(
    cell: Compiled,
    gradients: Sequence[Tensor | None],
    sequences: Sequence[Tensor],
    parameters: Sequence[Tensor],
    states: Sequence[Tensor],
    starts: Sequence[Tensor],
    resets: Tensor | None,
    lengths: Tensor | None,
    histories: Sequence[Tensor],
    saved: Sequence[Tensor],
    reverse: bool,
    operand: str = "",
    wanted: Sequence[bool] | None = None,
) -> list[Tensor | None]:
    """The gradients of sequences, parameters (those that are wanted), states and starts."""
    plan, count = cell.plan, len(states)
    target = targets.of(states[0].device)
    kernel = cell.kernel("backward", states[0].dtype, target)
    steps, batch = histories[0].shape[:2]
    # Hooks for saved tensors may give them back laid out in another way.
    histories = all_plain(histories)
    saved = [s if (s := resolved(t)).stride(-1) == 1 else s.contiguous() for t in saved]
    # What the backward pass does not read is only there for its shape.
    sequences = [plain(s) if k in plan.kept else s for k, s in enumerate(sequences)]
    parameters, states, starts = all_plain(parameters), all_plain(states), all_plain(starts)
    added, last = gradients[:count], gradients[count : 2 * count]
    carried, past, first_gradients, start_gradients = [], [], [], []
    nothing: dict[torch.Size, Tensor] = {}  # zeros, which are read alone
    for k, state in enumerate(states):
        if last[k] is None and state.shape not in nothing:
            nothing[state.shape] = torch.zeros_like(state)
        first = nothing[state.shape] if last[k] is None else plain(last[k])  # type: ignore[arg-type]
        first_gradients.append(torch.empty_like(state))
        # Where nothing goes back to a start, nothing is added up there.
        start_gradients.append(torch.zeros_like(state) if starts else torch.empty_like(state))
        carried.append(
            State(
                first,
                state.new_empty(2, *state.shape),
                first_gradients[-1],
                added=None if added[k] is None else plain(added[k]),  # type: ignore[arg-type]
                again_out=start_gradients[-1],
            )
        )
        again = starts[k] if starts else None
        past.append(State(state, histories[k], None, again, past=True))
    made: dict[Buffer, Tensor] = dict(zip(plan.saved, saved, strict=True))
    for buffer in kernel.buffers:
        if buffer.series and buffer not in made:
            made[buffer] = states[0].new_empty(steps, batch, buffer.width)
        elif buffer.kind == "sum":
            made[buffer] = states[0].new_zeros(batch, buffer.width)

    def where(buffer: Buffer) -> Tensor | tuple[int, int]:
        if buffer in made:
            return made[buffer]
        if buffer.kind == "new":
            return histories[buffer.index]
        if buffer.kind == "cotangent":
            return BEFORE, buffer.index
        if buffer.kind == "state":
            return BEFORE, count + buffer.index
        return place(buffer, sequences, parameters)

    shape = Shape(steps, batch, not reverse, True, resets, lengths, operand)
    zeroed = [b for b in made if b.series and b not in plan.saved] if lengths is not None else []
    kernel.run(shape, where, [*carried, *past], parameters, zeroed)
    alive: Tensor | None = None  # where the states that go by rows past their end are not finite
    if lengths is not None:
        going_by = states if reverse else [h[-1] for h in histories]
        # A sum is finite where all its numbers are, unless it overflows, which costs time alone.
        # A GPU is not asked: that would wait for all it has to do.
        if not states[0].is_cpu or not all(math.isfinite(s.sum()) for s in going_by):
            alive = inside(steps, lengths)

    def series(buffer: Buffer | None, state: int) -> Tensor:
        """One of the two that a product over time is of, as (T, B, width)."""
        if buffer is None:
            before = _before(states[state], histories[state], starts, state, resets, reverse)
            return before if alive is None else torch.where(alive, before, 0)
        return sequences[buffer.index] if buffer.kind == "sequence" else made[buffer]

    product = partial(target.product, operand=operand)
    out = [None if b is None else series(b, 0) for b in plan.sequence_gradients]
    for k, parameter in enumerate(parameters):
        if wanted is not None and not wanted[k]:
            out.append(None)
        elif k in plan.matrix_gradients:
            total = torch.zeros_like(parameter) if not plan.matrix_gradients[k] else None
            for pair in plan.matrix_gradients[k]:
                if resets is None and alive is None and _is_shifted(pair):
                    total = _shifted_product(
                        product, total, pair, series, states[pair.state],
                        histories[pair.state], reverse,
                    )  # fmt: skip
                else:
                    left = series(pair.left, pair.state).flatten(0, 1)
                    right = series(pair.right, pair.state).flatten(0, 1)
                    total = product(left.t(), right, out=total)
            assert total is not None
            out.append(total)
        elif k in plan.vector_gradients:
            buffer = plan.vector_gradients[k]
            each = made[buffer]
            out.append(target.column_sums(each.flatten(0, -2)).reshape(parameter.shape))
        else:
            out.append(torch.zeros_like(parameter))
    return [*out, *first_gradients, *(start_gradients if starts else [])]


def _is_shifted(pair: Pair) -> bool:
    return pair.right is None or pair.left is None


def _shifted_product(
    product: Callable[..., Tensor],
    total: Tensor | None,
    pair: Pair,
    series: Callable[[Buffer | None, int], Tensor],
    first: Tensor,
    history: Tensor,
    reverse: bool,
) -> Tensor:
    """Σ_t of rows with the state before step t, which is the one after the step before it."""
    other = series(pair.right if pair.left is None else pair.left, 0)
    later, earlier, start = other[1:], history[:-1], other[0]
    if reverse:
        later, earlier, start = other[:-1], history[1:], other[-1]
    pairs = [(later.flatten(0, 1), earlier.flatten(0, 1)), (start, first)]
    for left, right in pairs if pair.right is None else [(b, a) for a, b in pairs]:
        total = product(left.t(), right, out=total)
    assert total is not None
    return total


def _before(
    first: Tensor,
    history: Tensor,
    starts: Sequence[Tensor],
    state: int,
    resets: Tensor | None,
    reverse: bool,
) -> Tensor:
    """The state before every step (T, B, width)."""
    before = (
        torch.cat([history[1:], first.unsqueeze(0)])
        if reverse
        else torch.cat([first.unsqueeze(0), history[:-1]])
    )
    if resets is None:
        return before
    return torch.where(resets.unsqueeze(-1), starts[state], before)
