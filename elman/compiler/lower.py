"""From the traced operations of the loop to the compiler's graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from elman.cells.lines import at
from elman.compiler.ir import Buffer, Graph, Product, Value
from elman.compiler.ops import GRADIENTS as OWN_GRADIENTS
from elman.compiler.ops import VIEWS, name_of, op_of
from elman.compiler.record import Operation, Ref, Unsupported
from elman.compiler.rules import Matrix, Outer, Rules, Turned

aten = torch.ops.aten


@dataclass
class LoweredStep:
    """One step of the loop and of its gradient, in the compiler's terms.

    Attributes:
        new: the next states.
        sequence_gradients, state_gradients: rows, or None where they are zero.
        parameter_gradients: summed rows for a vector, :class:`Outer` for a matrix, None for zero.
    """

    graph: Graph
    sequences: list[Buffer]
    vectors: dict[int, Buffer]
    states: list[Buffer]
    cotangents: list[Buffer]
    new: list[Value]
    sequence_gradients: list[Value | None]
    parameter_gradients: list[Value | Outer | None]
    state_gradients: list[Value | None]
    buffers: list[Buffer] = field(default_factory=list)


def decompose(function: Any) -> Callable[..., Any] | None:
    """How an operation without a kernel is written in simpler ones, or None."""
    name = name_of(function)
    if name in OWN_GRADIENTS:
        return OWN_GRADIENTS[name]
    if op_of(function) or hasattr(Lowering, rule_of(name)) or name == "detach":
        return None
    # Looked up in PyTorch one by one, the operators of these tables would slow elman's import.
    from elman.compiler import reductions  # noqa: F401 # enters its rules
    from elman.compiler.decompositions import DECOMPOSITIONS, WITHOUT_KERNEL
    from elman.compiler.gradient_decompositions import GRADIENTS

    found = DECOMPOSITIONS.get(function) or GRADIENTS.get(function)
    if found is None and name not in WITHOUT_KERNEL:
        from torch._decomp import decomposition_table  # the use of which imports for a second

        found = decomposition_table.get(function)
    return found


def _said(size: int, batch: int) -> str:
    """A size for a message: the batch that the step was traced with is made up."""
    times, rest = divmod(size, batch)
    return str(size) if rest or not size else "B" if times == 1 else f"{times}·B"


def rule_of(name: str) -> str:
    """The name of the method for an operation of aten's."""
    return f"_{name.lstrip('_')}_"


class Lowering(Rules):
    """Walks the operations of a :class:`Loop` once."""

    def step(self) -> LoweredStep:
        """The whole of it."""
        loop = self.loop
        sequences = self._inputs("sequence", loop.sequences)
        states = self._inputs("state", loop.states)
        cotangents = self._inputs("cotangent", loop.cotangents)
        vectors = {}
        for k, number in enumerate(loop.parameters):
            shape = loop.shapes[number]
            if len(shape) == 2:
                self.values[number] = Matrix(k, False)
            elif len(shape) <= 1:
                vectors[k] = self._buffer("vector", k, math.prod(shape))
                self.values[number] = self._whole(vectors[k])
            else:
                raise Unsupported(f"it has a weight of shape {shape}")
        self._shared = {*loop.sequences, *loop.parameters, *loop.states, *loop.cotangents}
        for operation in loop.operations:
            if operation.function in VIEWS:
                self._shared.update(operation.refs(), operation.results)
        for operation in loop.operations:
            try:
                self._run(operation)
            except Unsupported as why:
                raise Unsupported(f"{why}{at(operation.line)}") from None
        gradient = [
            None if loop.gradients[n] is None else self.values[loop.gradients[n]]  # type: ignore[index]
            for n in (*loop.sequences, *loop.parameters, *loop.states)
        ]
        after_sequences = len(loop.sequences)
        after_parameters = after_sequences + len(loop.parameters)
        return LoweredStep(
            self.graph,
            sequences,
            vectors,
            states,
            cotangents,
            [self._rows(Ref(n)) for n in loop.new],
            gradient[:after_sequences],
            gradient[after_sequences:after_parameters],
            gradient[after_parameters:],
            self.buffers,
        )

    def materialised(self, rows: Value, series: bool = False) -> Buffer:
        """A buffer that holds exactly these rows; with ``series``, for every step."""
        first = rows.pieces[0][0]
        if len(rows.pieces) == 1 and first.op == "leaf" and first.width == first.buffer.width:
            whole = first.buffer
            if whole.kind in ("state", "sequence") or (not series and whole.kind == "product"):
                return whole
        key = tuple((id(node), width) for node, width in rows.pieces)
        if key not in self.locals:
            made = self._buffer("local", len(self.locals), rows.width)
            offset = 0
            for node, width in rows.pieces:
                made.stores.append((offset, node))
                offset += width
            self.locals[key] = made
        self.locals[key].series |= series
        return self.locals[key]

    def find(self, rows: Value) -> Buffer | None:
        """The buffer of these rows where :meth:`materialised` was asked for it."""
        return self.locals.get(tuple((id(node), width) for node, width in rows.pieces))

    # -- one operation ------------------------------------------------------------------------

    def _run(self, operation: Operation) -> None:
        name, op = name_of(operation.function), op_of(operation.function)
        args, kwargs = operation.args, operation.kwargs
        rule: Callable[..., Any] | None = getattr(self, rule_of(name), None)
        if rule is not None:
            out = rule(operation, *args, **kwargs)
        elif op is None:
            raise Unsupported(f"{operation.function.name()} has no kernel")
        elif kwargs:
            raise Unsupported(f"{name} with {', '.join(kwargs)} has no kernel")
        else:
            out = self._pointwise(op.name, *args)
        results = out if isinstance(out, list) else [out]
        self.values.update(zip(operation.results, results, strict=True))

    # -- views ----------------------------------------------------------------------------------

    def _split_(self, operation: Operation, of: Ref, size: int, dim: int = 0) -> list[Value]:
        rows = self._last(of, dim)
        starts = range(0, rows.width, size)
        return [rows.part(self.graph, s, min(s + size, rows.width)) for s in starts]

    def _split_with_sizes_(
        self, operation: Operation, of: Ref, sizes: Sequence[int], dim: int = 0
    ) -> list[Value]:
        rows, at, parts = self._last(of, dim), 0, []
        for size in sizes:
            parts.append(rows.part(self.graph, at, at + size))
            at += size
        return parts

    def _slice_(
        self, operation: Operation, of: Ref, dim: int = 0, start: Any = None, end: Any = None,
        step: int = 1,
    ) -> Any:  # fmt: skip
        shape = self.loop.shapes[of.number]
        size = shape[dim]
        first = min(size, max(0, (start or 0) + (size if (start or 0) < 0 else 0)))
        last = size if end is None else min(size, end + size if end < 0 else end)
        if first == 0 and last == size and step == 1:
            return self.values[of.number]
        if step != 1:
            raise Unsupported("a slice with a step has no kernel")
        return self._last(of, dim).part(self.graph, first, last)

    def _narrow_(self, operation: Operation, of: Ref, dim: int, start: int, size: int) -> Value:
        return self._last(of, dim).part(self.graph, start, start + size)

    def _cat_(self, operation: Operation, parts: Sequence[Ref], dim: int = 0) -> Value:
        rows = [self._last(p, dim) for p in parts]
        if len({r.summed for r in rows if any(n.op != "constant" for n, _ in r.pieces)}) > 1:
            raise Unsupported("a concatenation of a sum over the batch has no kernel")
        return Value(tuple(p for r in rows for p in r.pieces), any(r.summed for r in rows))

    def _slice_backward_(
        self, operation: Operation, of: Ref, shape: Sequence[int], dim: int, start: int, end: int,
        step: int,
    ) -> Value:  # fmt: skip
        rows = self._last(of, dim)
        zero, width = self.graph.constant(-0.0), shape[-1]  # which adds nothing to any number
        if step != 1 or (dim not in (-1, len(shape) - 1)):
            raise Unsupported("a slice with a step has no kernel")
        start += width if start < 0 else 0
        before = (zero, start), *rows.pieces, (zero, width - start - rows.width)
        return Value(tuple(p for p in before if p[1]), rows.summed)

    def _same(self, operation: Operation, of: Ref, *args: Any, **kwargs: Any) -> Any:
        """A view that changes nothing but leading axes of size 1, or repeats over the batch."""
        before, after = self.loop.shapes[of.number], self.loop.shapes[operation.results[0]]
        value = self.values[of.number]
        core = [tuple(n for n in s[:-1] if n not in (1, self.loop.batch)) for s in (before, after)]
        if not isinstance(value, Value):
            if before == after:
                return value
        elif not core[0] and not core[1]:
            if before[-1:] == after[-1:]:
                return value
            if not before or (before[-1] == 1 and value.width == 1):
                return Value(((value.pieces[0][0], after[-1] if after else 1),), value.summed)
        shapes = " to ".join(
            "(" + ", ".join(_said(n, self.loop.batch) for n in s) + ")" for s in (before, after)
        )
        raise Unsupported(f"{operation.function.name()} from {shapes} has no kernel")

    _view_ = _unsqueeze_ = _squeeze_ = _expand_ = _alias_ = _clone_ = _same
    _contiguous_ = _unsafe_view_ = _same

    def _turn(self, operation: Operation, of: Ref, *args: Any) -> Any:
        value = self._value(of)
        if isinstance(value, Matrix):
            return Matrix(value.weight, not value.transposed)
        if isinstance(value, Outer):
            return value.turned()
        return value.rows if isinstance(value, Turned) else Turned(value)

    _t_ = _turn

    def _permute_(self, operation: Operation, of: Ref, order: Sequence[int]) -> Any:
        return self._turn(operation, of) if list(order) == [1, 0] else self._same(operation, of)

    def _transpose_(self, operation: Operation, of: Ref, a: int, b: int) -> Any:
        return self._turn(operation, of) if a != b else self._value(of)

    # -- products --------------------------------------------------------------------------------

    def _mm_(self, operation: Operation, a: Ref, b: Ref) -> Any:
        left, right = self._value(a), self._value(b)
        if isinstance(left, Turned) and isinstance(right, Value):
            return Outer(((left.rows, right),))
        if not isinstance(left, Value) or not isinstance(right, Matrix) or left.summed:
            raise Unsupported("a product of this kind has no kernel")
        source = self.materialised(left)
        key = (id(source), right.weight, right.transposed)
        if key not in self.products:
            width = self.loop.shapes[operation.results[0]][-1]
            made = self._buffer("product", len(self.products), width)
            made.product = Product(source, right.weight, right.transposed)
            self.products[key] = made
        return self._whole(self.products[key])

    def _addmm_(self, operation: Operation, bias: Ref, a: Ref, b: Ref, **kwargs: Any) -> Any:
        if kwargs:
            raise Unsupported("addmm with factors has no kernel")
        return self._pointwise("add", self._value(bias), self._mm_(operation, a, b))

    def _inputs(self, kind: str, numbers: Sequence[int]) -> list[Buffer]:
        made = []
        for k, number in enumerate(numbers):
            shape = self.loop.shapes[number]
            if len(shape) != 2:
                raise Unsupported(f"the loop reads a value of shape {shape}, not a row of units")
            made.append(self._buffer(kind, k, shape[1]))
            self.values[number] = self._whole(made[-1])
        return made
