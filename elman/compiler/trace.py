"""From a cell's Python step to a list of aten operations, and the split at the loop over time.

The step runs once on small tensors under a dispatch mode that writes down every operation. What
depends on the input alone, or on the weights alone, is *hoisted*: PyTorch computes it for all
steps at once, before the loop, and differentiates it. What is left is the loop, whose inputs are
the hoisted values and the states; it is run a second time together with its gradient.

(``make_fx`` would do the same, but it imports a second's worth of modules that are not needed.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.cells.lines import at, codes, step_line
from elman.compiler.products import affine
from elman.compiler.record import VIEWS, NoDetach, Operation, Recorder, Ref, Unsupported, mapped

aten = torch.ops.aten


@dataclass
class Hoisted:
    """What PyTorch computes before the loop, from the input and the weights.

    Attributes:
        x: the number of the input, a value (batch · time, width).
        noise: likewise of the noise, or None.
        weights: the numbers of the weights and constants, by name.
        operations: what to run.
        sequences: the numbers of what the loop reads at every step.
        parameters: the numbers of the weights that the loop reads.
        batch: the batch size that the step was traced with.
    """

    x: int
    noise: int | None
    weights: dict[str, int]
    operations: list[Operation]
    sequences: list[int]
    parameters: list[int]
    batch: int

    def run(
        self, x: Tensor, weights: Mapping[str, Tensor], noise: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The loop's sequences, each (N, width), of x (N, M) and noise, and its weights."""
        values: dict[int, Any] = {number: weights[name] for name, number in self.weights.items()}
        values[self.x] = x
        if self.noise is not None:
            values[self.noise] = noise
        sizes = (self.batch, x.shape[0])
        for operation in self.operations:
            results = operation.run(values, sizes)
            values.update(zip(operation.results, results, strict=True))
        return [values[n] for n in self.sequences], [values[n] for n in self.parameters]

    def owns(self, k: int) -> bool:
        """Whether the k-th sequence is a map of the input's that nobody but the loop reads."""
        number = self.sequences[k]
        maps = [o for o in self.operations if o.function is affine and number in o.results]
        readers = [n for o in self.operations for n in o.refs()] + self.sequences
        return bool(maps) and readers.count(number) == 1


@dataclass
class Loop:
    """One step of the loop together with its gradient.

    The inputs' and outputs' numbers: ``sequences``, ``parameters``, ``states`` and ``cotangents``
    are read; ``new`` (the next states) and ``gradients`` (None: it is zero) are computed.
    """

    operations: list[Operation]
    shapes: dict[int, tuple[int, ...]]
    batch: int
    sequences: list[int]
    parameters: list[int]
    states: list[int]
    cotangents: list[int]
    new: list[int]
    gradients: dict[int, int | None] = field(default_factory=dict)


def trace(
    cell: Cell, decompose: Callable[[Any], Callable[..., Any] | None], *, hoist: bool = True
) -> tuple[Hoisted, Loop]:
    """Run ``cell`` once and split it into what is hoisted and the loop.

    Without ``hoist``, what depends on the input is a part of the loop, whose one sequence is x.

    Raises:
        Unsupported: the step asks for a value of the data, or draws random numbers.
    """
    # As if nothing surrounded it: what is found holds for every later call. In inference mode and
    # under autocast PyTorch records other operations, and hooks would see what is not theirs.
    with (
        torch.inference_mode(False),
        torch.autocast("cpu", enabled=False),
        torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
    ):
        return _trace(cell, decompose, hoist)


def _trace(
    cell: Cell, decompose: Callable[[Any], Callable[..., Any] | None], hoist: bool
) -> tuple[Hoisted, Loop]:
    dtype = torch.float32
    weights = {k: torch.zeros(s, dtype=dtype) for k, s in cell.weight_shapes().items()}
    constants = {k: torch.zeros(c.shape, dtype=dtype) for k, c in cell.named_buffers()}
    sizes = {cell.input_size, cell.input_size + cell.noise_size, *cell.state_sizes}
    sizes |= {n for p in (*weights.values(), *constants.values()) for n in p.shape}
    batch = next(n for n in (97, 101, 103, 107, 109, 113, 127, 131) if n not in sizes)
    x = torch.zeros(batch, cell.input_size, dtype=dtype)
    noise = torch.zeros(batch, cell.noise_size, dtype=dtype)
    states = [torch.zeros(batch, size, dtype=dtype) for size in cell.state_sizes]

    bound = cell.bind(weights | constants)
    recorder = Recorder(decompose, pure=True, steps=codes(cell))
    numbers = {k: recorder.number(w, new=True) for k, w in (weights | constants).items()}
    x_number, noise_number = recorder.number(x, new=True), recorder.number(noise, new=True)
    state_numbers = [recorder.number(s, new=True) for s in states]
    recorder.loop = set(state_numbers if hoist else [*state_numbers, x_number])
    with torch.enable_grad():
        for leaf in (x, *states, *weights.values()):
            leaf.requires_grad_()
        try:
            with recorder, NoDetach():
                new = bound(torch.cat([x, noise], -1) if cell.noise_size else x, *states)
        except Unsupported as why:
            raise Unsupported(f"{why}{at(step_line(cell, why))}") from None
    bound.check_step(x, states, new)
    new_numbers = [recorder.number(n) for n in new]
    known = {*numbers.values(), x_number, noise_number, *state_numbers}
    computed = {n for o in recorder.operations for n in o.results}
    _check_sources(recorder.operations, known | computed)

    operations = recorder.operations
    if cell.noise_size:
        operations = _apart(operations, x_number, noise_number, cell.input_size, recorder.shapes)
    operations = _merge_biases(operations, recorder.shapes)
    hoisted, loop, inputs = _split(
        operations,
        {x_number, noise_number},
        state_numbers if hoist else [*state_numbers, x_number],
        new_numbers,
        recorder.masks,
    )
    moving = [n for n in inputs if n in hoisted.moving] if hoist else []
    sequences = moving or [x_number]  # read or not, it says how many steps there are
    parameters = [n for n in inputs if n not in hoisted.moving]
    needed = [_affine(operation, recorder.shapes) for operation in hoisted.needed(inputs)]
    drawn = noise_number if cell.noise_size else None
    before = Hoisted(x_number, drawn, numbers, needed, sequences, parameters, batch)
    if hoist:
        _check_rows(before, recorder.shapes)
    fixed = {noise_number, *(numbers[name] for name in constants)}
    for operation in operations:
        if fixed.issuperset(operation.refs()):
            fixed.update(operation.results)
    return before, _differentiate(
        loop, decompose, recorder.shapes, dtype, batch, sequences, parameters, state_numbers,
        new_numbers, fixed,
    )  # fmt: skip


def _affine(operation: Operation, shapes: Mapping[int, tuple[int, ...]]) -> Operation:
    """A map of all steps as elman's own operator, which is faster."""
    if _is_map(operation, shapes):
        return replace(operation, function=affine)
    if operation.function is aten.mm.default:
        return replace(operation, function=affine, args=(None, *operation.args))
    return operation


def _is_map(operation: Operation | None, shapes: Mapping[int, tuple[int, ...]]) -> bool:
    """Whether it is x W + b, with a b for each column."""
    if operation is None or operation.function is not aten.addmm.default or operation.kwargs:
        return False
    bias, _, weight = operation.args
    return shapes[bias.number] == shapes[weight.number][1:]


def _check_rows(hoisted: Hoisted, shapes: Mapping[int, tuple[int, ...]]) -> None:
    """That what runs before the loop treats every row alone: it will have those of all steps."""
    draw = torch.Generator().manual_seed(0)

    def some(number: int) -> Tensor:
        return torch.rand(shapes[number], generator=draw) - 0.5

    with torch.no_grad():
        x, weights = some(hoisted.x), {name: some(n) for name, n in hoisted.weights.items()}
        noise = None if hoisted.noise is None else some(hoisted.noise)
        half = hoisted.batch // 2
        whole, _ = hoisted.run(x, weights, noise)
        part, _ = hoisted.run(x[:half], weights, None if noise is None else noise[:half])
    for a, b in zip(whole, part, strict=True):
        if not torch.allclose(a[:half], b, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise Unsupported("its step mixes the rows of the batch")


def _apart(
    operations: Sequence[Operation], x: int, noise: int, width: int, shapes: dict[int, Any]
) -> list[Operation]:
    """Input and noise as they were before they came to the step side by side."""
    side_by_side, *rest = operations
    whole = side_by_side.results[0]
    parts = {whole: (0, shapes[whole][-1])}
    same: dict[int, int] = {}
    kept = []
    for operation in rest:
        number = operation.refs()[0] if operation.function is aten.slice.Tensor else -1
        if number not in parts:
            if parts.keys() & set(operation.refs()):
                return list(operations)  # it reads both at once
            kept.append(_renamed(operation, same))
            continue
        first, last = parts[number]
        begin, end, _ = slice(*operation.args[2:]).indices(last - first)
        begin, end, (result,) = first + begin, first + end, operation.results
        if (begin, end) == (0, width):
            same[result] = x
        elif begin >= width:
            args = (Ref(noise), 1, begin - width, end - width)
            kept.append(replace(operation, args=args))
        else:
            parts[result] = (begin, end)
    return kept


def _renamed(operation: Operation, same: Mapping[int, int]) -> Operation:
    def name(v: Any) -> Any:
        return Ref(same.get(v.number, v.number)) if isinstance(v, Ref) else v

    args, kwargs = mapped(name, (operation.args, operation.kwargs))
    return replace(operation, args=args, kwargs=kwargs)


def _check_sources(operations: Sequence[Operation], known: set[int]) -> None:
    for operation in operations:
        for number in operation.refs():
            if number not in known:
                raise Unsupported(
                    "its step uses a tensor that is not one of its declared weights"
                    f"{at(operation.line)}"
                )
        if "generator" in str(operation.function._schema) or torch.Tag.nondeterministic_seeded in (
            operation.function.tags
        ):
            raise Unsupported(
                f"its step draws random numbers ({operation.function.name()}){at(operation.line)}"
            )


@dataclass
class _Before:
    operations: list[Operation]
    moving: set[int]

    def needed(self, outputs: Sequence[int]) -> list[Operation]:
        wanted, kept = set(outputs), []
        for operation in reversed(self.operations):
            if wanted.intersection(operation.results):
                wanted.update(operation.refs())
                kept.append(operation)
        return kept[::-1]


def _split(
    operations: Sequence[Operation],
    read: set[int],
    states: Sequence[int],
    new: Sequence[int],
    masks: set[int],
) -> tuple[_Before, list[Operation], list[int]]:
    """Which operations are hoisted, which are the loop's, and what the loop reads of the former."""
    in_loop, moving = set(states), set(read)
    before, loop, repeated = [], [], {}
    for operation in operations:
        refs = operation.refs()
        if in_loop.intersection(refs):
            in_loop.update(operation.results)
            loop.append(operation)
            continue
        if moving.intersection(refs):
            moving.update(operation.results)
        before.append(operation)
        if operation.function in VIEWS or masks.intersection(operation.results):
            repeated.update(dict.fromkeys(operation.results, operation))
    constants = {n for o in before if not o.refs() for n in o.results}
    # The loop repeats views and constants, because reading through them costs it nothing, and
    # comparisons, because it reads numbers only.
    inputs: list[int] = []
    again: dict[int, Operation] = {}

    def need(number: int) -> None:
        operation = repeated.get(number)
        if number in in_loop or number in again:
            return
        if operation is None and number not in constants:
            if number not in inputs:
                inputs.append(number)
            return
        operation = operation or next(o for o in before if number in o.results)
        for ref in operation.refs():
            need(ref)
        again.update(dict.fromkeys(operation.results, operation))

    for number in [*(r for o in loop for r in o.refs()), *new]:
        need(number)
    first = list({id(o): o for o in again.values()}.values())
    return _Before(before, moving), first + loop, inputs


def _merge_biases(
    operations: Sequence[Operation], shapes: dict[int, tuple[int, ...]]
) -> list[Operation]:
    """(W x + b) + (U h + b') as (W x + (b + b')) + U h, so that no bias is added in the loop."""
    uses: dict[int, int] = {}
    maker: dict[int, Operation] = {}
    for operation in operations:
        for ref in operation.refs():
            uses[ref] = uses.get(ref, 0) + 1
        maker.update(dict.fromkeys(operation.results, operation))
    merged = list(operations)
    for operation in operations:
        if operation.function is not aten.add.Tensor or operation.kwargs or len(operation.args) > 2:
            continue
        pair = [maker.get(a.number) if isinstance(a, Ref) else None for a in operation.args]
        if any(not _is_map(m, shapes) or uses[m.results[0]] > 1 for m in pair if m) or None in pair:
            continue
        first, second = pair[0], pair[1]
        assert first is not None and second is not None
        both = max(shapes) + 1
        shapes[both] = shapes[first.args[0].number]
        added = Operation(aten.add.Tensor, (first.args[0], second.args[0]), {}, [both])
        merged.insert(merged.index(first), added)
        merged[merged.index(first)] = Operation(
            first.function, (Ref(both), *first.args[1:]), {}, first.results
        )
        merged[merged.index(second)] = Operation(
            aten.mm.default, second.args[1:], {}, second.results
        )
    return merged


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


def _differentiate(
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
                recorder.line = operation.line
                values.update(zip(operation.results, operation.run(values), strict=True))
            recorder.line = ""  # a gradient's operations stand in nobody's step
            outputs = [values[n] for n in new]
            wanted = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
            moved = [n for n in inputs if n not in fixed]
        gradients: Sequence[Tensor | None] = [None] * len(moved)
        if wanted:
            loss = _Loss.apply(len(wanted), *(c for _, c in wanted), *(o for o, _ in wanted))
            with recorder:
                gradients = torch.autograd.grad(loss, [values[n] for n in moved], allow_unused=True)
    numbered = dict.fromkeys((given[n] for n in inputs), None) | {
        given[n]: None if g is None else recorder.number(g)
        for n, g in zip(moved, gradients, strict=True)
    }
    return Loop(
        recorder.operations,
        recorder.shapes,
        batch,
        [given[n] for n in sequences],
        [given[n] for n in parameters],
        [given[n] for n in states],
        given_cotangents,
        [recorder.number(o) for o in outputs],
        numbered,
    )
