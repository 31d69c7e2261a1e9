"""The split at the loop over time: what of a step is computed before it, for all steps at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from elman.cells.lines import at
from elman.compiler.affine import affine
from elman.compiler.ops import FILLS, VIEWS
from elman.compiler.record import Operation, Recorder, Ref, Unsupported, mapped

aten = torch.ops.aten


@dataclass
class Before:
    """What can be computed before the loop, and which of it is another at every step."""

    operations: list[Operation]
    moving: set[int]

    def needed(self, outputs: Sequence[int]) -> list[Operation]:
        """The operations that these values come from."""
        wanted, kept = set(outputs), []
        for operation in reversed(self.operations):
            if wanted.intersection(operation.results):
                wanted.update(operation.refs())
                kept.append(operation)
        return kept[::-1]


def split(
    operations: Sequence[Operation],
    read: set[int],
    states: Sequence[int],
    new: Sequence[int],
    recorder: Recorder,
    real: torch.dtype,
) -> tuple[Before, list[Operation], list[int]]:
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
    return Before(before, moving), first + loop, inputs


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


def merge_biases(operations: Sequence[Operation], recorder: Recorder) -> list[Operation]:
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


def apart(
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


def whole_map(operation: Operation, shapes: Mapping[int, tuple[int, ...]]) -> Operation:
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
