"""The loop's operations a second time, with their gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from elman.cells.lines import at
from elman.compiler.record import Operation, Recorder, Unsupported


@dataclass
class Loop:
    """One step of the loop together with its gradient.

    The inputs' and outputs' numbers: ``sequences``, ``parameters``, ``states`` and ``cotangents``
    are read; ``new`` (the next states) and ``gradients`` (None: it is zero) are computed.
    """

    operations: list[Operation]
    shapes: dict[int, tuple[int, ...]]
    types: dict[int, torch.dtype]
    batch: int
    sequences: list[int]
    parameters: list[int]
    states: list[int]
    cotangents: list[int]
    new: list[int]
    gradients: dict[int, int | None] = field(default_factory=dict)


class _Loss(torch.autograd.Function):
    """A number whose gradients with respect to the outputs are the cotangents.

    Given gradients of its own, ``torch.autograd.grad`` imports PyTorch's symbolic shapes, which
    takes half a second.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> Tensor:
        ctx.cotangents = tensors[:count]
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *(None for _ in ctx.cotangents), *ctx.cotangents)


def _again(operation: Operation, values: Mapping[int, Any]) -> list[Any]:
    """The operation, of numbers of the loop's type."""
    try:
        return operation.run(values)
    except Unsupported:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        said = (str(error).splitlines() or [""])[0]
        raise Unsupported(
            f"{operation.function} has no kernel ({said}){at(operation.line)}"
        ) from None


def _gradients(loss: Tensor, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
    try:
        return torch.autograd.grad(loss, inputs, allow_unused=True)
    except RuntimeError as error:  # of functions that PyTorch has no gradient for
        said = (str(error).splitlines() or [""])[0]
        raise Unsupported(f"its step has no gradient ({said})") from None


def with_gradient(
    loop: Sequence[Operation],
    decompose: Callable[[Any], Callable[..., Any] | None],
    shapes: Mapping[int, tuple[int, ...]],
    dtype: torch.dtype,
    batch: int,
    sequences: Sequence[int],
    parameters: Sequence[int],
    states: Sequence[int],
    new: Sequence[int],
    fixed: set[int],
) -> Loop:
    """Run the loop's operations again, on leaves, and then their gradient.

    What is in ``fixed`` depends on constants alone and has none.
    """
    values: dict[int, Any] = {}
    recorder = Recorder(decompose, pure=False)
    inputs = [*sequences, *parameters, *states]
    with torch.enable_grad():
        for number in inputs:
            learns = number not in fixed
            values[number] = torch.zeros(shapes[number], dtype=dtype, requires_grad=learns)
        given = {n: recorder.number(values[n], new=True) for n in inputs}
        cotangents = [torch.zeros(shapes[n], dtype=dtype) for n in new]
        given_cotangents = [recorder.number(c, new=True) for c in cotangents]
        with recorder:
            for operation in loop:
                recorder.line = operation.line  # of the step, for messages
                values.update(zip(operation.results, _again(operation, values), strict=True))
            recorder.line = ""  # a gradient's operations stand in nobody's step
            outputs = [values[n] for n in new]
            wanted = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
            moved = [n for n in inputs if n not in fixed]
        gradients: Sequence[Tensor | None] = [None] * len(moved)
        if wanted:
            loss = _Loss.apply(len(wanted), *(c for _, c in wanted), *(o for o, _ in wanted))
            with recorder:
                gradients = _gradients(loss, [values[n] for n in moved])
    numbered = dict.fromkeys((given[n] for n in inputs), None) | {
        given[n]: None if g is None else recorder.number(g)
        for n, g in zip(moved, gradients, strict=True)
    }
    return Loop(
        recorder.operations,
        recorder.shapes,
        recorder.types,
        batch,
        [given[n] for n in sequences],
        [given[n] for n in parameters],
        [given[n] for n in states],
        given_cotangents,
        [recorder.number(o) for o in outputs],
        numbered,
    )
