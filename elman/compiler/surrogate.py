"""A step's own gradients: what an ``autograd.Function`` in a step does to the recording.

A spiking cell, for one, has a threshold whose gradient is that of another function. The recording
has the operations of its ``forward``, through which no gradient goes. Here its ``backward`` is
recorded as well, and attached to what ``forward`` gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from elman.cells.lines import at
from elman.compiler.record import Operation, Recorder, Ref, Unsupported


@dataclass(eq=False)
class Surrogate:
    """The gradient of a step's own function; as the function of an operation, it attaches it.

    Attributes:
        backward: what ``backward`` does.
        cotangents, gradients: the numbers of what it is given and of what it gives.
        reads: the numbers of the values of the step that it reads.
    """

    name: str
    backward: list[Operation]
    cotangents: list[int]
    gradients: list[int | None]
    reads: list[int]
    sized: ClassVar[bool] = True

    def __call__(
        self,
        outputs: Sequence[Tensor],
        inputs: Sequence[Tensor],
        read: Sequence[Tensor],
        batch: tuple[int, int] | None = None,
    ) -> tuple[Tensor, ...]:
        """``outputs``, with the gradient to ``inputs``; ``batch`` as in :meth:`Operation.run`."""
        counts = len(outputs), len(inputs)
        found: tuple[Tensor, ...] = _Attached.apply(self, batch, counts, *outputs, *inputs, *read)
        return found

    def __repr__(self) -> str:
        return f"{self.name} {[(str(o.function), o.args, o.kwargs) for o in self.backward]}"


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, surrogate: Surrogate, batch: Any, counts: tuple[int, int], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.surrogate, ctx.batch, ctx.outputs = surrogate, batch, counts[0]
        ctx.save_for_backward(*tensors[sum(counts) :])
        return tuple(t.view_as(t) for t in tensors[: counts[0]])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        surrogate: Surrogate = ctx.surrogate
        values = dict(zip(surrogate.reads, ctx.saved_tensors, strict=True))
        values |= dict(zip(surrogate.cotangents, cotangents, strict=True))
        device = next((t.device for t in cotangents if t is not None), None)
        for operation in surrogate.backward:
            found = operation.run(values, ctx.batch, device)
            values.update(zip(operation.results, found, strict=True))
        gradients = [None if n is None else values[n] for n in surrogate.gradients]
        none = [None] * (3 + ctx.outputs)
        return (*none, *gradients, *(None for _ in surrogate.reads))


def attach(new: Sequence[Tensor], recorder: Recorder) -> None:
    """Put the gradients of the step's own functions into its recording.

    Args:
        new: the states that the step gave.
        recorder: which recorded it.

    Raises:
        Unsupported: one is of a kind that cannot be recorded.
    """
    for node in _own_functions(new):
        made = {n for (source, _), n in recorder.graph.items() if source is node}
        line = next((o.line for o in recorder.operations if made & {*o.results}), "")
        name = type(node).__name__.removesuffix("Backward")
        try:
            _attach(node, name, recorder)
        except Exception as why:
            raise Unsupported(
                f"its step uses {name}, an autograd.Function whose gradient cannot be traced"
                f"{at(line)} ({(str(why).splitlines() or [''])[0]})"
            ) from None


def _own_functions(new: Sequence[Tensor]) -> list[Any]:
    """The nodes of PyTorch's graph that are no operation of its own."""
    stack, seen, found = [t.grad_fn for t in new], set(), []
    while stack:
        node: Any = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if isinstance(node, torch.autograd.function.BackwardCFunction):
                found.append(node)
            stack += [after for after, _ in node.next_functions]
    return found


def _attach(node: Any, name: str, recorder: Recorder) -> None:
    outputs = {nr: n for (source, nr), n in recorder.graph.items() if source is node}
    expected = node._input_metadata
    if outputs.keys() != set(range(len(expected))):
        raise Unsupported("not all that it gives is used")
    wanted = [k for k, asked in enumerate(node.needs_input_grad) if asked]
    edges = [(after, nr) for after, nr in node.next_functions if after is not None]
    inputs = [recorder.graph[edge] if edge in recorder.graph else _leaf(edge, recorder)
              for edge in edges]  # fmt: skip
    if set(inputs) & set(outputs.values()):
        raise Unsupported("it gives back what it is given")
    cotangents = [torch.zeros(m.shape, dtype=m.dtype) for m in expected]
    given = [recorder.number(c, new=True) for c in cotangents]
    with recorder.aside() as backward, torch.no_grad():
        found = node._forward_cls.backward(node, *cotangents)
    found = found if isinstance(found, tuple) else (found,)
    numbers = [None if found[k] is None else recorder.number(found[k]) for k in wanted]
    made = {n for o in backward for n in o.results} | set(given)
    reads = [n for o in backward for n in o.refs()] + [n for n in numbers if n is not None]
    reads = [n for n in dict.fromkeys(reads) if n not in made]
    last = max(k for k, o in enumerate(recorder.operations) if {*outputs.values()} & {*o.results})
    results = [outputs[k] for k in range(len(outputs))]
    arguments = tuple(tuple(map(Ref, part)) for part in (results, inputs, reads))
    attached = Operation(
        Surrogate(name, backward, given, numbers, reads), arguments, {}, results,
        recorder.operations[last].line,
    )  # fmt: skip
    recorder.operations.insert(last + 1, attached)


def _leaf(edge: tuple[Any, int], recorder: Recorder) -> int:
    return recorder.number(edge[0].variable)
