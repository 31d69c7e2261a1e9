"""From a cell's Python step to a list of aten operations, and the split at the loop over time.

The step runs once on small tensors under a dispatch mode that writes down every operation. What
depends on the input alone, or on the weights alone, is *hoisted*: PyTorch computes it for all
steps at once, before the loop, and differentiates it. What is left is the loop, whose inputs are
the hoisted values and the states; it is run a second time together with its gradient.

(``make_fx`` would do the same, but it imports a second's worth of modules that are not needed.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.cells.lines import at, codes, step_line
from elman.compiler.products import affine
from elman.compiler.record import (
    FILLS,
    VIEWS,
    Operation,
    Recorder,
    Ref,
    Stops,
    Unsupported,
    mapped,
)  # fmt: skip
from elman.compiler.surrogate import attach

aten = torch.ops.aten

_T = TypeVar("_T")


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
        changed: the first line of the step that changes a tensor in place, if one does.
        recording: what the step was recorded as, by which another recording is compared.
    """

    x: int
    noise: int | None
    weights: dict[str, int]
    operations: list[Operation]
    sequences: list[int]
    parameters: list[int]
    batch: int
    changed: str = ""
    recording: list[str] = field(default_factory=list)

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
    types: dict[int, torch.dtype]
    batch: int
    sequences: list[int]
    parameters: list[int]
    states: list[int]
    cotangents: list[int]
    new: list[int]
    gradients: dict[int, int | None] = field(default_factory=dict)


def trace(
    cell: Cell,
    decompose: Callable[[Any], Callable[..., Any] | None],
    real: torch.dtype,
    *,
    hoist: bool = True,
) -> tuple[Hoisted, Loop]:
    """Run ``cell`` once, with numbers of the type ``real``, and split it at the loop.

    Without ``hoist``, what depends on the input is a part of the loop, whose one sequence is x.

    Raises:
        Unsupported: the step asks for a value of the data, draws random numbers, or does what has
            no kernel.
    """
    return undisturbed(
        lambda: _divided(cell, record(cell, decompose, real), decompose, real, hoist)
    )


def undisturbed(function: Callable[[], _T]) -> _T:
    """``function()`` as if nothing surrounded it: what is found holds for every later call.

    In inference mode and under autocast PyTorch records other operations, and hooks would see what
    is not theirs.
    """
    if torch._C._get_tracing_state() is not None:  # torch.jit.trace looks at this thread alone
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(lambda: undisturbed(function)).result()
    with (
        torch.device("cpu"),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autograd.graph.saved_tensors_hooks(lambda t: (t, t._version), _unchanged),
    ):
        return function()


def _unchanged(saved: tuple[Tensor, int]) -> Tensor:
    """What was saved for a gradient; hooks take the place of PyTorch's own test of this."""
    tensor, version = saved
    if tensor._version != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace "
            "operation"
        )
    return tensor


@dataclass
class Recorded:
    """What one run of a step was made of: the numbers of what it read and gave."""

    recorder: Recorder
    weights: dict[str, int]
    x: int
    noise: int
    states: list[int]
    new: list[int]
    batch: int

    @property
    def texts(self) -> list[str]:
        """Each operation, and what was given in the end, as texts: in them NaN equals itself."""
        return [
            *(f"{o.function} {o.args} {o.kwargs} {o.results} {o.learns}" for o in self.operations),
            str(self.new),
        ]

    @property
    def operations(self) -> list[Operation]:
        """What was done, in this order."""
        return self.recorder.operations


def record(
    cell: Cell,
    decompose: Callable[[Any], Callable[..., Any] | None],
    real: torch.dtype,
) -> Recorded:
    """Run ``cell`` once on small tensors and write down what it does; for the rest :func:`trace`.

    Raises:
        Unsupported: as in :func:`trace`.
        InputError: the step does not keep to its contract.
    """
    weights = {k: torch.zeros(s, dtype=real) for k, s in cell.weight_shapes().items()}
    constants = {
        k: torch.zeros(c.shape, dtype=real if c.is_floating_point() else c.dtype)
        for k, c in cell.named_buffers()
    }
    sizes = {cell.input_size, cell.input_size + cell.noise_size, *cell.state_sizes}
    sizes |= {n for p in (*weights.values(), *constants.values()) for n in p.shape}
    batch = next(n for n in (97, 101, 103, 107, 109, 113, 127, 131) if n not in sizes)
    x = torch.zeros(batch, cell.input_size, dtype=real)
    noise = torch.zeros(batch, cell.noise_size, dtype=real)
    states = [torch.zeros(batch, size, dtype=real) for size in cell.state_sizes]

    bound = cell.bind(weights | constants)
    before = dict(vars(bound))
    recorder = Recorder(decompose, pure=True, steps=codes(cell))
    numbers = {k: recorder.given(w) for k, w in (weights | constants).items()}
    x_number, noise_number = recorder.given(x), recorder.given(noise)
    state_numbers = [recorder.given(s) for s in states]
    for leaf in (x, *states, *weights.values()):
        leaf.requires_grad_()
    try:
        with recorder, Stops():
            new = bound(torch.cat([x, noise], -1) if cell.noise_size else x, *states)
    except Unsupported as why:
        # The made-up number of rows is nobody's business.
        said = re.sub(rf"\b{batch}\b", "B", str(why))
        raise Unsupported(f"{said}{at(step_line(cell, why))}") from None
    bound.check_attributes(before, x, states)
    bound.check_step(x, states, new)
    new_numbers = [recorder.see(n) for n in new]
    attach(new, recorder)
    known = {*numbers.values(), x_number, noise_number, *state_numbers}
    computed = {n for o in recorder.operations for n in o.results}
    _check_sources(recorder.operations, known | computed)
    return Recorded(recorder, numbers, x_number, noise_number, state_numbers, new_numbers, batch)


def _divided(
    cell: Cell,
    recorded: Recorded,
    decompose: Callable[[Any], Callable[..., Any] | None],
    real: torch.dtype,
    hoist: bool,
) -> tuple[Hoisted, Loop]:
    recorder, numbers, x_number = recorded.recorder, recorded.weights, recorded.x
    noise_number, state_numbers, batch = recorded.noise, recorded.states, recorded.batch
    operations = recorder.operations
    if cell.noise_size:
        operations = _apart(operations, x_number, noise_number, cell.input_size, recorder.shapes)
    operations = _merge_biases(operations, recorder)
    hoisted, loop, inputs = _split(
        operations,
        {x_number, noise_number},
        state_numbers if hoist else [*state_numbers, x_number],
        recorded.new,
        recorder,
        real,
    )
    moving = [n for n in inputs if n in hoisted.moving] if hoist else []
    sequences = moving or [x_number]  # read or not, it says how many steps there are
    parameters = [n for n in inputs if n not in hoisted.moving]
    needed = [_affine(operation, recorder.shapes) for operation in hoisted.needed(inputs)]
    drawn = noise_number if cell.noise_size else None
    before = Hoisted(
        x_number, drawn, numbers, needed, sequences, parameters, batch, recorder.changed,
        recorded.texts,
    )  # fmt: skip
    if hoist:
        _check_rows(before, recorder)
    fixed = {noise_number, *(numbers[name] for name, _ in cell.named_buffers())}
    for operation in operations:
        if fixed.issuperset(operation.refs()):
            fixed.update(operation.results)
    return before, _differentiate(
        loop, decompose, recorder.shapes, real, batch, sequences, parameters, state_numbers,
        recorded.new, fixed,
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


def _check_rows(hoisted: Hoisted, recorder: Recorder) -> None:
    """That what runs before the loop treats every row alone: it will have those of all steps."""
    draw = torch.Generator().manual_seed(0)

    def some(number: int) -> Tensor:
        drawn = torch.rand(recorder.shapes[number], generator=draw, dtype=torch.float64) - 0.5
        real = recorder.types[number]
        return drawn.to(real) if real.is_floating_point else (drawn > 0).to(real)

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
                    "its step reads a tensor that is none of its declared weights"
                    f"{at(operation.line)}: declare what nobody learns as a Constant"
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
    recorder: Recorder,
    real: torch.dtype,
) -> tuple[_Before, list[Operation], list[int]]:
    """Which operations are hoisted, which are the loop's, and what the loop reads of the former."""
    types = recorder.types
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
        masks = refs and all(types[n] == torch.bool for n in operation.results)
        if operation.function in VIEWS or masks or operation.function in FILLS:
            repeated.update(dict.fromkeys(operation.results, operation))
    # The loop repeats views and constants, because reading through them costs it nothing, and
    # comparisons, because it reads numbers only.
    inputs: list[int] = []
    again: dict[int, Operation] = {}

    def need(number: int) -> None:
        if number in in_loop or number in again or number in inputs:
            return
        operation = repeated.get(number)
        if operation is None and types[number] == real:
            inputs.append(number)
            return
        if operation is None:
            # The loop reads numbers of its own type: any other becomes one before it.
            inputs.append(_converted(number, before, moving, recorder, real))
            kind = aten.ne.Scalar if types[number] == torch.bool else aten.alias.default
            zero = (0,) if types[number] == torch.bool else ()
            operation = Operation(kind, (Ref(inputs[-1]), *zero), {}, [number])
        for ref in operation.refs():
            need(ref)
        again.update(dict.fromkeys(operation.results, operation))

    for number in [*(r for o in loop for r in o.refs()), *new]:
        need(number)
    first = list({id(o): o for o in again.values()}.values())
    for operation in first + loop:
        _check_types(operation, types, real)
    return _Before(before, moving), first + loop, inputs


def _check_types(operation: Operation, types: Mapping[int, torch.dtype], real: torch.dtype) -> None:
    """That the loop computes in its own type: only 0 and 1, and constants, are alike in all."""
    exact = operation.function in FILLS | VIEWS or (
        operation.function is aten._to_copy.default
        and types[operation.args[0].number] == torch.bool
    )
    for number in operation.results:
        if not exact and types.get(number, real) not in (real, torch.bool):
            raise Unsupported(
                f"its step turns a value into {types[number]}, where its weights are {real}"
                f"{at(operation.line)}"
            )


def _converted(
    number: int, before: list[Operation], moving: set[int], recorder: Recorder, real: torch.dtype
) -> int:
    """The number of the same value as numbers of the loop's type, made before the loop."""
    made = len(recorder.shapes)
    recorder.shapes[made], recorder.types[made] = recorder.shapes[number], real
    before.append(Operation(aten._to_copy.default, (Ref(number),), {"dtype": real}, [made]))
    if number in moving:
        moving.add(made)
    return made


def _merge_biases(operations: Sequence[Operation], recorder: Recorder) -> list[Operation]:
    """(W x + b) + (U h + b') as (W x + (b + b')) + U h, so that no bias is added in the loop."""
    shapes, types = recorder.shapes, recorder.types
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
        if not (operation.learns and first.learns and second.learns):
            continue
        both = len(shapes)
        bias = first.args[0].number
        shapes[both], types[both] = shapes[bias], types[bias]
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
                gradients = torch.autograd.grad(loss, [values[n] for n in moved], allow_unused=True)
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
