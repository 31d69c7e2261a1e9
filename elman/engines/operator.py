"""The loop over time as PyTorch operators: ``elman::loop`` and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.compiler.backward import run_backward
from elman.compiler.forward import LoopOutputs, outputs, run_forward
from elman.compiler.modes import is_batched, is_traced
from elman.engines import kept
from elman.engines.rerun import differentiable_backward, grouped, sequences_of
from elman.errors import InputError

_library = torch.library.Library("elman", "DEF")
_library.define(
    "loop(str cell, Tensor[] origin, Tensor[] sequences, Tensor[] parameters, Tensor[] states, "
    "Tensor[] starts, Tensor? resets, Tensor? lengths, bool reverse, bool keep, bool train, "
    "str operand='') -> Tensor[]"
)
_library.define(
    "loop_backward(str cell, Tensor?[] gradients, Tensor[] sequences, Tensor[] parameters, "
    "Tensor[] states, Tensor[] starts, Tensor? resets, Tensor? lengths, Tensor[] histories, "
    "Tensor[] saved, bool reverse, str operand='') -> Tensor[]"
)


def _loop(name: str, origin: Sequence[Tensor], *rest: Any) -> list[Tensor]:
    return run_forward(kept.COMPILED[name], *rest)


def _loop_backward(name: str, *rest: Any) -> list[Tensor]:
    """As an operator: it has no way to say that a gradient is zero."""
    given = (tensor for part in rest[1:5] for tensor in part)
    gradients = zip(run_backward(kept.COMPILED[name], *rest), given, strict=True)
    return [torch.zeros_like(t) if g is None else g for g, t in gradients]


def _fake_loop(
    name: str, origin: Any, sequences: Any, parameters: Any, states: Any, starts: Any, resets: Any,
    lengths: Any, reverse: bool, keep: bool, train: bool, operand: str = "",
) -> list[Tensor]:  # fmt: skip
    steps, batch = sequences[0].shape[:2]
    return outputs(kept.COMPILED[name], states[0], steps, batch, keep, train)


def _fake_backward(
    name: str, gradients: Any, sequences: Any, parameters: Any, states: Any, starts: Any,
    resets: Any, lengths: Any, histories: Any, saved: Any, reverse: bool, operand: str = "",
) -> list[Tensor]:  # fmt: skip
    return [torch.empty_like(t) for t in (*sequences, *parameters, *states, *starts)]


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    name, origin, sequences, parameters, states, starts = inputs[:6]
    resets, lengths, reverse, keep, train, operand = inputs[6:]
    layout = LoopOutputs(kept.COMPILED[name], keep, train)
    read = [sequences[k] for k in kept.COMPILED[name].plan.kept]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(
        *origin, *read, *parameters, *states, *starts, *output[: layout.histories],
        *output[layout.rest], resets, lengths,
    )  # fmt: skip
    ctx.sizes = (
        len(origin), len(read), len(parameters), len(states), len(starts), layout.histories
    )  # fmt: skip
    ctx.name, ctx.reverse, ctx.layout, ctx.operand = name, reverse, layout, operand
    ctx.held = kept.hold(name)
    ctx.sequence_shapes = [s.shape for s in sequences]
    ctx.direct, ctx.cell = False, None


_NOTHING = (None,) * 6
"""The gradients of what is no tensor, and of masks."""


def _backward(ctx: Any, gradients: Sequence[Tensor | None]) -> tuple[Any, ...]:
    *tensors, resets, lengths = ctx.saved_tensors
    sizes = (*ctx.sizes, len(tensors) - sum(ctx.sizes))
    origin, read, parameters, states, starts, histories, saved = grouped(tensors, sizes)
    layout, compiled = ctx.layout, kept.COMPILED[ctx.name]
    if not layout.train:
        raise InputError(
            "this program was recorded where no gradient was wanted, and has none: "
            "record it outside torch.no_grad()."
        )
    given = [*gradients[: layout.histories], *gradients[layout.last]]
    if torch.is_grad_enabled() or is_batched(given):
        cell = ctx.cell or kept.made_for(ctx.name)
        found = differentiable_backward(
            compiled.hoisted, cell, given, origin, ctx.sequence_shapes[0][:2],
            layout.histories, states, starts, resets, lengths, ctx.reverse,
        )  # fmt: skip
        between = [None] * len(ctx.sequence_shapes), [None] * len(parameters)
        return (None, found[0], *between, *found[1:], *_NOTHING)
    if ctx.direct and ctx.counter._version != ctx.version:
        again = sequences_of(compiled.hoisted, origin, ctx.sequence_shapes)
        histories[0], *_ = run_forward(
            compiled, again, parameters, states, starts, resets, lengths, ctx.reverse,
            False, False, ctx.operand,
        )  # fmt: skip
    held = dict(zip(compiled.plan.kept, read, strict=True))
    # A sequence that the backward pass does not read is represented by an empty shell.
    sequences = [
        held.get(k, states[0].new_empty(1).expand(shape))
        for k, shape in enumerate(ctx.sequence_shapes)
    ]
    inputs = (
        given, sequences, parameters, states, starts, resets, lengths, histories, saved,
        ctx.reverse, ctx.operand,
    )  # fmt: skip
    if ctx.direct:
        first = 4 + len(origin) + len(sequences)
        wanted = ctx.needs_input_grad[first : first + len(parameters)]
        out = run_backward(compiled, *inputs, wanted)
    else:
        out = torch.ops.elman.loop_backward(ctx.name, *inputs)
    parts = grouped(out, [len(part) for part in (sequences, parameters, states, starts)])
    return (None, [None] * len(origin), *parts, *_NOTHING)


class _Loop(torch.autograd.Function):
    """``elman::loop`` without the dispatch of operators, which takes a third of a millisecond."""

    @staticmethod
    def forward(
        ctx: Any, name: str, cell: Cell, sizes: Any, rest: Any, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        inputs = (name, *grouped(tensors, sizes), *rest)
        out = run_forward(kept.COMPILED[name], *inputs[2:], reuse=True)
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
    resets: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    keep: bool,
    train: bool,
    operand: str,
    *,
    cell: Cell | None,
) -> Sequence[Tensor]:
    """``elman::loop`` by the shortest way: its histories and last states; more may follow.

    Derivatives of derivatives run ``cell``, which the kernels were made for. It may be left out
    where these are held for good.
    """
    groups = (origin, sequences, parameters, states, starts)
    rest = (resets, lengths, reverse, keep, train, operand)
    if is_traced(t for group in groups for t in group):
        if cell is not None:
            kept.hold(name, for_good=cell)
        return torch.ops.elman.loop(name, origin, sequences, parameters, states, starts, *rest)
    if not train:  # no gradient is wanted
        return _loop(name, *groups, *rest)
    sizes = [len(g) for g in groups]
    return _Loop.apply(name, cell, sizes, rest, *(t for g in groups for t in g))


def _loop_of_graph(name: str, *rest: Any) -> list[Tensor]:
    """As :func:`_loop`, in a graph that was made when cells read what they may no longer read."""
    present = [now for ask in kept.watched(name) if (now := ask()) is not None]
    if present and name not in present:
        raise InputError(
            f"the step of {name.partition('#')[0].partition('[')[0].rpartition(':')[2]} reads "
            "something that has changed since torch.compile compiled it, where PyTorch does not "
            "see it, such as a global name: call torch.compiler.reset() and run it again."
        )
    return _loop(name, *rest)


for _device in ("CPU", "CUDA"):
    _library.impl("loop", _loop_of_graph, _device)
    _library.impl("loop_backward", _loop_backward, _device)
torch.library.register_fake("elman::loop", _fake_loop, lib=_library)
torch.library.register_fake("elman::loop_backward", _fake_backward, lib=_library)
torch.library.register_autograd("elman::loop", _backward, setup_context=_set_up, lib=_library)
