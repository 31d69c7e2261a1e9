"""The loop over time as PyTorch operators: ``elman::loop`` and its gradient."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.compiler.cpu.compiled import Compiled
from elman.compiler.cpu.kernels import BEFORE, Shape, State, place
from elman.compiler.cpu.products import column_sums, product
from elman.compiler.differentiate import Pair
from elman.compiler.ir import Buffer
from elman.compiler.masks import dead_rows, inside
from elman.compiler.memory import all_plain, plain, resolved
from elman.compiler.modes import is_batched, is_traced
from elman.engines.rerun import differentiable_backward, grouped, sequences_of
from elman.errors import InputError


class _Kernels(dict[str, Compiled]):
    """By name; one that a program brings from another process is compiled when it is asked for."""

    def __missing__(self, name: str) -> Compiled:
        from elman.engines.native import revived

        return revived(name)


COMPILED: dict[str, Compiled] = _Kernels()
"""What the operators run, by the name that they are given."""


class Held:
    """Keeps the kernels of that name: when the last holder of it is gone, they go."""

    def __init__(self, name: str):
        self.name = name
        weakref.finalize(self, COMPILED.pop, name, None)


_held: weakref.WeakValueDictionary[str, Held] = weakref.WeakValueDictionary()
_for_good: dict[str, tuple[Held, Cell]] = {}


def hold(name: str, *, for_good: Cell | None = None) -> Held:
    """A holder of the kernels of that name.

    Where a graph of others speaks of them, they are held ``for_good``, with the cell that they
    were made for.
    """
    held = _held.get(name)
    if held is None:
        held = _held[name] = Held(name)
    if for_good is not None:
        _for_good[name] = held, for_good
    return held


_watched: dict[str, list[Callable[[], str | None]]] = {}


def watch(name: str, present: Callable[[], str | None]) -> None:
    """Ask, whenever a compiled graph speaks of ``name``, what the name would be now.

    ``present`` gives it, or None where the cell is gone.
    """
    _watched.setdefault(name, []).append(present)


_library = torch.library.Library("elman", "DEF")
_library.define(
    "loop(str cell, Tensor[] origin, Tensor[] sequences, Tensor[] parameters, Tensor[] states, "
    "Tensor[] starts, Tensor? resets, Tensor? lengths, bool reverse, bool keep, bool train) "
    "-> Tensor[]"
)
_library.define(
    "loop_backward(str cell, Tensor?[] gradients, Tensor[] sequences, Tensor[] parameters, "
    "Tensor[] states, Tensor[] starts, Tensor? resets, Tensor? lengths, Tensor[] histories, "
    "Tensor[] saved, bool reverse) -> Tensor[]"
)


class Layout:
    """The order of the tensors that ``elman::loop`` returns.

    First the states after each step (of the first state alone, or of all), then the states after
    the last step, then what the backward pass needs.
    """

    def __init__(self, cell: Compiled, keep: bool, train: bool):
        self.train = train
        self.states = len(cell.plan.step.states)
        self.histories = self.states if keep or train else 1
        self.saved = len(cell.plan.saved) if train else 0
        self.last = slice(self.histories, self.histories + self.states)
        self.rest = slice(self.histories + self.states, None)


def _outputs(
    cell: Compiled,
    like: Tensor,
    steps: int,
    batch: int,
    keep: bool,
    train: bool,
    sequences: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Room for what the loop gives; with ``sequences``, in their place where that is possible."""
    layout, widths = Layout(cell, keep, train), [b.width for b in cell.plan.step.states]
    shapes: list[tuple[int, ...]] = [(steps, batch, w) for w in widths[: layout.histories]]
    shapes += [(batch, w) for w in widths]
    out = [like.new_empty(shape) for shape in shapes]
    for buffer in cell.plan.saved[: layout.saved]:
        if sequences is not None and buffer in cell.places:
            k, offset = cell.places[buffer]
            out.append(sequences[k].detach().narrow(-1, offset, buffer.width))
        else:
            out.append(like.new_empty(steps, batch, buffer.width))
    return out


def _loop(
    name: str,
    origin: Sequence[Tensor],
    sequences: Sequence[Tensor],
    parameters: Sequence[Tensor],
    states: Sequence[Tensor],
    starts: Sequence[Tensor],
    resets: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    keep: bool,
    train: bool,
    *,
    reuse: bool = False,
) -> list[Tensor]:
    """With ``reuse``, what is saved may take the place of the sequences that nobody else reads."""
    cell = COMPILED[name]
    cell.check_shapes(sequences, parameters)
    steps, batch = sequences[0].shape[:2]
    layout = Layout(cell, keep, train)
    sequences, parameters = all_plain(sequences), all_plain(parameters)
    out = _outputs(cell, states[0], steps, batch, keep, train, sequences if reuse else None)
    histories = out[: layout.histories]
    begins: Sequence[Tensor | None] = all_plain(starts) or [None] * len(states)
    histories += [s.new_empty(2, *s.shape) for s in states[layout.histories :]]
    given = [
        State(s, history, last, start)
        for s, history, last, start in zip(
            all_plain(states), histories, out[layout.last], begins, strict=True
        )
    ]
    saved = dict(zip(cell.plan.saved, out[layout.rest], strict=train))

    def where(buffer: Buffer) -> Tensor | tuple[int, int]:
        if buffer in saved:
            return saved[buffer]
        return place(buffer, sequences, parameters)

    if not steps:  # of a program that was recorded with some
        for last, state in zip(out[layout.last], states, strict=True):
            last.copy_(state)
        return out
    kernel = cell.kernel("train" if train else "forward", states[0].dtype)
    shape = Shape(steps, batch, reverse, False, resets, lengths)
    kernel.run(shape, where, given, parameters)
    if lengths is not None:
        _clear(out[layout.rest], lengths)
    return out


def _loop_backward(
    name: str,
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
    wanted: Sequence[bool] | None = None,
) -> list[Tensor | None]:
    """The gradients of sequences, parameters (those that are wanted), states and starts."""
    cell = COMPILED[name]
    plan, count = cell.plan, len(states)
    steps, batch = histories[0].shape[:2]
    # Hooks for saved tensors may give them back laid out in another way.
    histories = all_plain(histories)
    saved = [s if (s := resolved(t)).stride(-1) == 1 else s.contiguous() for t in saved]
    # What the backward pass does not read is only there for its shape.
    sequences = [plain(s) if k in plan.kept else s for k, s in enumerate(sequences)]
    parameters, states, starts = all_plain(parameters), all_plain(states), all_plain(starts)
    added, last = gradients[:count], gradients[count : 2 * count]
    carried, past, first_gradients, start_gradients = [], [], [], []
    for k, state in enumerate(states):
        first = torch.zeros_like(state) if last[k] is None else plain(last[k])  # type: ignore[arg-type]
        first_gradients.append(torch.empty_like(state))
        start_gradients.append(torch.zeros_like(state))
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
    for buffer in cell.kernel("backward", states[0].dtype).buffers:
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

    shape = Shape(steps, batch, not reverse, True, resets, lengths)
    kernel = cell.kernel("backward", states[0].dtype)
    kernel.run(shape, where, [*carried, *past], parameters)
    alive: Tensor | None = None  # where the states that go by rows past their end are not finite
    if lengths is not None:
        _clear((b for k, b in made.items() if k.series and k not in plan.saved), lengths)
        going_by = states if reverse else [h[-1] for h in histories]
        if not all(bool(s.isfinite().all()) for s in going_by):
            alive = inside(steps, lengths)

    def rows(buffer: Buffer | None, state: int) -> Tensor:
        """A pair's side as (T, B, width)."""
        if buffer is None:
            before = _before(states[state], histories[state], starts, state, resets, reverse)
            return before if alive is None else torch.where(alive, before, 0)
        return sequences[buffer.index] if buffer.kind == "sequence" else made[buffer]

    out = [None if b is None else rows(b, 0) for b in plan.sequence_gradients]
    for k, parameter in enumerate(parameters):
        if wanted is not None and not wanted[k]:
            out.append(None)
        elif k in plan.matrix_gradients:
            total = torch.zeros_like(parameter) if not plan.matrix_gradients[k] else None
            for pair in plan.matrix_gradients[k]:
                if resets is None and alive is None and _is_shifted(pair):
                    total = _shifted_product(
                        total, pair, rows, states[pair.state], histories[pair.state], reverse
                    )
                else:
                    left = rows(pair.left, pair.state).flatten(0, 1)
                    right = rows(pair.right, pair.state).flatten(0, 1)
                    total = product(left.t(), right, out=total)
            assert total is not None
            out.append(total)
        elif k in plan.vector_gradients:
            buffer = plan.vector_gradients[k]
            each = made[buffer]
            out.append(column_sums(each.flatten(0, -2)).reshape(parameter.shape))
        else:
            out.append(torch.zeros_like(parameter))
    return [*out, *first_gradients, *(start_gradients if starts else [])]


def _loop_backward_whole(*args: Any) -> list[Tensor]:
    """As an operator: it has no way to say that a gradient is zero."""
    given = (tensor for part in args[2:6] for tensor in part)
    gradients = zip(_loop_backward(*args), given, strict=True)
    return [torch.zeros_like(t) if g is None else g for g, t in gradients]


def _is_shifted(pair: Pair) -> bool:
    return pair.right is None or pair.left is None


def _shifted_product(
    total: Tensor | None,
    pair: Pair,
    rows: Any,
    first: Tensor,
    history: Tensor,
    reverse: bool,
) -> Tensor:
    """Σ_t of rows with the state before step t, which is the one after the step before it."""
    other = rows(pair.right if pair.left is None else pair.left, 0)
    later, earlier, start = other[1:], history[:-1], other[0]
    if reverse:
        later, earlier, start = other[:-1], history[1:], other[-1]
    sides = [(later.flatten(0, 1), earlier.flatten(0, 1)), (start, first)]
    for left, right in sides if pair.right is None else [(b, a) for a, b in sides]:
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


def _clear(buffers: Iterable[Tensor], lengths: Tensor) -> None:
    """Zero what buffers (T, B, width) hold past each sequence's end, which nobody has computed."""
    rows: Tensor | None = None
    for buffer in buffers:
        rows = dead_rows(buffer.shape[0], lengths) if rows is None else rows
        buffer.view(-1, buffer.shape[-1]).index_fill_(0, rows, 0)


def _fake_loop(
    name: str, origin: Any, sequences: Any, parameters: Any, states: Any, starts: Any, resets: Any,
    lengths: Any, reverse: bool, keep: bool, train: bool,
) -> list[Tensor]:  # fmt: skip
    steps, batch = sequences[0].shape[:2]
    return _outputs(COMPILED[name], states[0], steps, batch, keep, train)


def _fake_backward(
    name: str, gradients: Any, sequences: Any, parameters: Any, states: Any, starts: Any,
    resets: Any, lengths: Any, histories: Any, saved: Any, reverse: bool,
) -> list[Tensor]:  # fmt: skip
    return [torch.empty_like(t) for t in (*sequences, *parameters, *states, *starts)]


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    name, origin, sequences, parameters, states, starts = inputs[:6]
    resets, lengths, reverse, keep, train = inputs[6:]
    layout = Layout(COMPILED[name], keep, train)
    kept = [sequences[k] for k in COMPILED[name].plan.kept]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(
        *origin, *kept, *parameters, *states, *starts, *output[: layout.histories],
        *output[layout.rest], resets, lengths,
    )  # fmt: skip
    ctx.sizes = (
        len(origin), len(kept), len(parameters), len(states), len(starts), layout.histories
    )  # fmt: skip
    ctx.name, ctx.reverse, ctx.layout = name, reverse, layout
    ctx.held = hold(name)
    ctx.sequence_shapes = [s.shape for s in sequences]
    ctx.direct, ctx.cell = False, None


def _backward(ctx: Any, gradients: Sequence[Tensor | None]) -> tuple[Any, ...]:
    *tensors, resets, lengths = ctx.saved_tensors
    sizes = (*ctx.sizes, len(tensors) - sum(ctx.sizes))
    origin, kept, parameters, states, starts, histories, saved = grouped(tensors, sizes)
    layout = ctx.layout
    if not layout.train:
        raise InputError(
            "this program was recorded where no gradient was wanted, and has none: "
            "record it outside torch.no_grad()."
        )
    given = [*gradients[: layout.histories], *gradients[layout.last]]
    if torch.is_grad_enabled() or is_batched(given):
        cell = ctx.cell or _for_good[ctx.name][1]
        found = differentiable_backward(
            COMPILED[ctx.name].hoisted, cell, given, origin, ctx.sequence_shapes[0][:2],
            layout.histories, states, starts, resets, lengths, ctx.reverse,
        )  # fmt: skip
        between = [None] * len(ctx.sequence_shapes), [None] * len(parameters)
        return (None, found[0], *between, *found[1:], None, None, None, None, None)
    if ctx.direct and ctx.counter._version != ctx.version:
        again = sequences_of(COMPILED[ctx.name].hoisted, origin, ctx.sequence_shapes)
        histories[0], *_ = _loop(
            ctx.name, origin, again, parameters, states, starts, resets, lengths, ctx.reverse,
            False, False,
        )  # fmt: skip
    plan = COMPILED[ctx.name].plan
    held = dict(zip(plan.kept, kept, strict=True))
    # A sequence that the backward pass does not read is represented by an empty shell.
    sequences = [
        held.get(k, states[0].new_empty(1).expand(shape))
        for k, shape in enumerate(ctx.sequence_shapes)
    ]
    inputs = (
        ctx.name, given, sequences, parameters, states, starts, resets, lengths, histories, saved,
        ctx.reverse,
    )  # fmt: skip
    if ctx.direct:
        first = 4 + len(origin) + len(sequences)
        out = _loop_backward(*inputs, ctx.needs_input_grad[first : first + len(parameters)])
    else:
        out = torch.ops.elman.loop_backward(*inputs)
    parts = grouped(out, [len(part) for part in (sequences, parameters, states, starts)])
    return (None, [None] * len(origin), *parts, None, None, None, None, None)


class _Loop(torch.autograd.Function):
    """``elman::loop`` without the dispatch of operators, which takes a third of a millisecond."""

    @staticmethod
    def forward(
        ctx: Any, name: str, cell: Cell, sizes: Any, rest: Any, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        inputs = (name, *grouped(tensors, sizes), *rest)
        out = _loop(*inputs, reuse=True)
        # The output is saved without its count of changes: changed in place, as by
        # relu(y, inplace=True), it is no error but is computed again. What counts holds no memory.
        y, *others = out
        _set_up(ctx, inputs, [y.data, *others])
        ctx.counter, ctx.version = y.detach(), y._version
        ctx.counter.data = y.new_empty(0)
        ctx.direct, ctx.cell = True, cell
        return tuple(out[: ctx.layout.last.stop])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        _, *groups = _backward(ctx, gradients)[:6]
        return (None, None, None, None, *(gradient for group in groups for gradient in group))


def loop(
    name: str,
    origin: Sequence[Tensor],
    sequences: Sequence[Tensor],
    parameters: Sequence[Tensor],
    states: Sequence[Tensor],
    starts: Sequence[Tensor],
    *rest: Any,
    cell: Cell | None,
) -> Sequence[Tensor]:
    """``elman::loop`` by the shortest way: its histories and last states; more may follow.

    Derivatives of derivatives run ``cell``, which the kernels were made for. It may be left out
    where these are held for good.
    """
    groups = (origin, sequences, parameters, states, starts)
    if is_traced(t for group in groups for t in group):
        if cell is not None:
            hold(name, for_good=cell)
        return torch.ops.elman.loop(name, origin, sequences, parameters, states, starts, *rest)
    if not rest[-1]:  # no gradient is wanted
        return _loop(name, *groups, *rest)
    sizes = [len(g) for g in groups]
    return _Loop.apply(name, cell, sizes, rest, *(t for g in groups for t in g))


def _loop_of_graph(name: str, *rest: Any) -> list[Tensor]:
    """As :func:`_loop`, in a graph that was made when cells read what they may no longer read."""
    present = [now for ask in _watched.get(name, ()) if (now := ask()) is not None]
    if present and name not in present:
        raise InputError(
            f"the step of {name.partition('#')[0].partition('[')[0].rpartition(':')[2]} reads "
            "something that has changed since torch.compile compiled it, where PyTorch does not "
            "see it, such as a global name: call torch.compiler.reset() and run it again."
        )
    return _loop(name, *rest)


_library.impl("loop", _loop_of_graph, "CPU")
_library.impl("loop_backward", _loop_backward_whole, "CPU")
torch.library.register_fake("elman::loop", _fake_loop, lib=_library)
torch.library.register_fake("elman::loop_backward", _fake_backward, lib=_library)
torch.library.register_autograd("elman::loop", _backward, setup_context=_set_up, lib=_library)
