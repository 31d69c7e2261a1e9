"""From the traced operations of the loop to the compiler's graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from elman.compiler.ir import Buffer, Graph, Product, Rows, pointwise
from elman.compiler.trace import VIEWS, Loop, Operation, Ref, Unsupported

aten = torch.ops.aten


@dataclass(frozen=True)
class Matrix:
    """A weight matrix, or its transpose."""

    weight: int
    transposed: bool


@dataclass(frozen=True)
class Turned:
    """Rows as columns: (width, B)."""

    rows: Rows


@dataclass(frozen=True)
class Outer:
    """Σ over time and batch of aᵀ b for each pair (a, b): the gradient of a weight matrix."""

    pairs: tuple[tuple[Rows, Rows], ...]

    def turned(self) -> Outer:
        """Its transpose."""
        return Outer(tuple((b, a) for a, b in self.pairs))


@dataclass
class Step:
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
    new: list[Rows]
    sequence_gradients: list[Rows | None]
    parameter_gradients: list[Rows | Outer | None]
    state_gradients: list[Rows | None]
    buffers: list[Buffer] = field(default_factory=list)


POINTWISE = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "neg": "neg", "abs": "abs",
    "sigmoid": "sigmoid", "tanh": "tanh", "exp": "exp", "expm1": "expm1", "log": "log",
    "log1p": "log1p", "sqrt": "sqrt", "rsqrt": "rsqrt", "reciprocal": "reciprocal",
    "relu": "relu", "sin": "sin", "cos": "cos", "erf": "erf", "sign": "sign", "sgn": "sign",
    "maximum": "maximum", "minimum": "minimum", "where": "where", "lt": "lt", "le": "le",
    "gt": "gt", "ge": "ge", "eq": "eq", "ne": "ne", "logical_and": "both",
    "logical_or": "either", "logical_not": "negate", "bitwise_and": "both",
    "bitwise_or": "either", "__and__": "both", "__or__": "either",
    "bitwise_not": "negate", "floor": "floor", "atan": "atan",
}  # fmt: skip
"""aten's name of a pointwise function, and the compiler's."""


def decompose(function: Any) -> Callable[..., Any] | None:
    """How PyTorch writes an operation without a kernel in simpler ones, or None."""
    name = function.name().split("::")[1].split(".")[0]
    if name in POINTWISE or hasattr(Lowering, f"_{name}_") or name == "detach":
        return None
    from torch._decomp import decomposition_table

    found: Callable[..., Any] | None = decomposition_table.get(function)
    return found


class Lowering:
    """Walks the operations of a :class:`Loop` once."""

    def __init__(self, loop: Loop):
        self.loop = loop
        self.graph = Graph()
        self.values: dict[int, Any] = {}
        self.locals: dict[Any, Buffer] = {}
        self.products: dict[Any, Buffer] = {}
        self.buffers: list[Buffer] = []

    def step(self) -> Step:
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
            self._run(operation)
        gradient = [
            None if loop.gradients[n] is None else self.values[loop.gradients[n]]  # type: ignore[index]
            for n in (*loop.sequences, *loop.parameters, *loop.states)
        ]
        after_sequences = len(loop.sequences)
        after_parameters = after_sequences + len(loop.parameters)
        return Step(
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

    def materialised(self, rows: Rows, series: bool = False) -> Buffer:
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

    def find(self, rows: Rows) -> Buffer | None:
        """The buffer of these rows where :meth:`materialised` was asked for it."""
        return self.locals.get(tuple((id(node), width) for node, width in rows.pieces))

    # -- one operation ------------------------------------------------------------------------

    def _run(self, operation: Operation) -> None:
        name = operation.function.name().split("::")[1].split(".")[0]
        args, kwargs = operation.args, operation.kwargs
        rule: Callable[..., Any] | None = getattr(self, f"_{name}_", None)
        if rule is not None:
            out = rule(operation, *args, **kwargs)
        elif name in POINTWISE:
            if kwargs:
                raise Unsupported(f"{name} with {', '.join(kwargs)} has no kernel")
            out = self._pointwise(POINTWISE[name], *args)
        else:
            raise Unsupported(f"{operation.function.name()} has no kernel")
        results = out if isinstance(out, list) else [out]
        self.values.update(zip(operation.results, results, strict=True))

    def _pointwise(self, name: str, *args: Any) -> Any:
        values = [self._value(a) for a in args]
        if any(isinstance(v, Outer) for v in values):
            return self._outer(name, values)
        for v in values:
            if not isinstance(v, Rows):
                raise Unsupported(f"{name} of a weight matrix inside the loop has no kernel")
        summed = [v.summed for v in values]
        if any(summed):
            linear = all(summed) if name in ("add", "sub") else name in ("mul", "div", "neg")
            # A sum passes through what is linear in it, and the same for every row.
            if not linear or (len(values) == 2 and name in ("mul", "div") and all(summed)):
                raise Unsupported(f"{name} of a sum over the batch has no kernel")
            others = [v for v in values if not v.summed]
            if any(node.op != "constant" for v in others for node, _ in v.pieces):
                raise Unsupported(f"{name} of a sum over the batch has no kernel")
        return pointwise(self.graph, name, values, any(summed))

    def _outer(self, name: str, values: list[Any]) -> Outer:
        if name != "add" or not all(isinstance(v, Outer) for v in values):
            raise Unsupported(f"{name} of a weight's gradient has no kernel")
        return Outer(tuple(pair for v in values for pair in v.pairs))

    # -- views ----------------------------------------------------------------------------------

    def _split_(self, operation: Operation, of: Ref, size: int, dim: int = 0) -> list[Rows]:
        rows = self._last(of, dim)
        starts = range(0, rows.width, size)
        return [rows.part(self.graph, s, min(s + size, rows.width)) for s in starts]

    def _split_with_sizes_(
        self, operation: Operation, of: Ref, sizes: Sequence[int], dim: int = 0
    ) -> list[Rows]:
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

    def _narrow_(self, operation: Operation, of: Ref, dim: int, start: int, size: int) -> Rows:
        return self._last(of, dim).part(self.graph, start, start + size)

    def _cat_(self, operation: Operation, parts: Sequence[Ref], dim: int = 0) -> Rows:
        rows = [self._last(p, dim) for p in parts]
        if len({r.summed for r in rows if any(n.op != "constant" for n, _ in r.pieces)}) > 1:
            raise Unsupported("a concatenation of a sum over the batch has no kernel")
        return Rows(tuple(p for r in rows for p in r.pieces), any(r.summed for r in rows))

    def _slice_backward_(
        self, operation: Operation, of: Ref, shape: Sequence[int], dim: int, start: int, end: int,
        step: int,
    ) -> Rows:  # fmt: skip
        rows = self._last(of, dim)
        zero, width = self.graph.constant(0.0), shape[-1]
        if step != 1 or (dim not in (-1, len(shape) - 1)):
            raise Unsupported("a slice with a step has no kernel")
        start += width if start < 0 else 0
        before = (zero, start), *rows.pieces, (zero, width - start - rows.width)
        return Rows(tuple(p for p in before if p[1]), rows.summed)

    def _same(self, operation: Operation, of: Ref, *args: Any, **kwargs: Any) -> Any:
        """A view that changes nothing but leading axes of size 1, or repeats over the batch."""
        before, after = self.loop.shapes[of.number], self.loop.shapes[operation.results[0]]
        value = self.values[of.number]
        core = [tuple(n for n in s[:-1] if n not in (1, self.loop.batch)) for s in (before, after)]
        if not isinstance(value, Rows):
            if before == after:
                return value
        elif not core[0] and not core[1]:
            if before[-1:] == after[-1:]:
                return value
            if not before or (before[-1] == 1 and value.width == 1):
                return Rows(((value.pieces[0][0], after[-1] if after else 1),), value.summed)
        raise Unsupported(f"{operation.function.name()} from {before} to {after} has no kernel")

    _view_ = _unsqueeze_ = _squeeze_ = _expand_ = _alias_ = _clone_ = _same
    _contiguous_ = __unsafe_view_ = _same

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
        if isinstance(left, Turned) and isinstance(right, Rows):
            return Outer(((left.rows, right),))
        if not isinstance(left, Rows) or not isinstance(right, Matrix) or left.summed:
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

    # -- reductions ------------------------------------------------------------------------------

    def _sum_(
        self, operation: Operation, of: Ref, dims: Sequence[int] = (), keep: bool = False, **_: Any
    ) -> Rows:
        rows, shape = self._rows(of), self.loop.shapes[of.number]
        axes = {d % len(shape) for d in dims} if dims else set(range(len(shape)))
        if len(shape) == 2 and axes == {0}:
            return Rows(rows.pieces, True)
        if axes == {len(shape) - 1} and (keep or len(shape) == 1):
            return self._row_sum(rows)
        if len(shape) == 2 and axes == {0, 1}:
            return Rows(self._row_sum(rows).pieces, True)
        raise Unsupported("a sum that drops the units' axis has no kernel: keep it (keepdim=True)")

    def _row_sum(self, rows: Rows) -> Rows:
        total = self.graph.constant(0.0)
        for node, width in rows.pieces:
            if node.width <= 1 and width > 1:
                part = self.graph.op("mul", node, self.graph.constant(width))
            else:
                part = self.graph.reduce("sum", node)
            total = self.graph.op("add", total, part)
        return Rows(((total, 1),), rows.summed)

    def _mean_(
        self, operation: Operation, of: Ref, dims: Sequence[int] = (), keep: bool = False, **_: Any
    ) -> Rows:
        total = self._sum_(operation, of, dims, keep)
        count = self._constant(1.0 / self.loop.shapes[of.number][-1])
        return pointwise(self.graph, "mul", [total, count], total.summed)

    def _amax_(
        self, operation: Operation, of: Ref, dims: Sequence[int] = (), keep: bool = False
    ) -> Rows:
        rows = self._last(of, dims[0] if len(dims) == 1 else 0)
        if not keep:
            raise Unsupported("a maximum that drops the units' axis has no kernel: keep it")
        best = None
        for node, _ in rows.pieces:
            one = self.graph.reduce("max", node)
            best = one if best is None else self.graph.op("maximum", best, one)
        assert best is not None
        return Rows(((best, 1),))

    def _var_(
        self, operation: Operation, of: Ref, dims: Any = None, *, correction: Any = 1,
        keepdim: bool = False,
    ) -> Rows:  # fmt: skip
        return self._var_mean_(
            operation, of, dims, correction=correction, keepdim=keepdim
        )[0]  # fmt: skip

    def _var_mean_(
        self, operation: Operation, of: Ref, dims: Any = None, *, correction: Any = 1,
        keepdim: bool = False,
    ) -> list[Rows]:  # fmt: skip
        size = self.loop.shapes[of.number][-1]
        mean = self._mean_(operation, of, dims or (), keepdim)
        off = self._pointwise("sub", self._rows(of), mean)
        squares = self._row_sum(self._pointwise("mul", off, off))
        scale = self._constant(1.0 / max(1, size - (1 if correction is None else correction)))
        return [self._pointwise("mul", squares, scale), mean]

    # -- pointwise functions that are more than one node -----------------------------------------

    def _add_(self, operation: Operation, a: Any, b: Any, alpha: Any = 1) -> Any:
        return self._pointwise("add", a, b if alpha == 1 else self._pointwise("mul", b, alpha))

    def _sub_(self, operation: Operation, a: Any, b: Any, alpha: Any = 1) -> Any:
        return self._pointwise("sub", a, b if alpha == 1 else self._pointwise("mul", b, alpha))

    def _rsub_(self, operation: Operation, a: Any, b: Any, alpha: Any = 1) -> Any:
        return self._pointwise("sub", b, a if alpha == 1 else self._pointwise("mul", a, alpha))

    def _pow_(self, operation: Operation, a: Any, b: Any) -> Any:
        if not isinstance(b, (int, float)) or b not in (0.5, 1, 2, 3, -1, -0.5):
            raise Unsupported("a power other than −1, −½, ½, 1, 2, 3 has no kernel")
        if b in (0.5, -0.5, -1):
            return self._pointwise({0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}[b], a)
        power = self._value(a)
        for _ in range(int(b) - 1):
            power = self._pointwise("mul", power, a)
        return power

    def _clamp_(self, operation: Operation, a: Any, low: Any = None, high: Any = None) -> Any:
        if low is not None:
            a = self._pointwise("maximum", a, low)
        return a if high is None else self._pointwise("minimum", a, high)

    def _clamp_min_(self, operation: Operation, a: Any, low: Any) -> Any:
        return self._pointwise("maximum", a, low)

    def _clamp_max_(self, operation: Operation, a: Any, high: Any) -> Any:
        return self._pointwise("minimum", a, high)

    def _sigmoid_backward_(self, operation: Operation, g: Any, y: Any) -> Any:
        slope = self._pointwise("mul", y, self._pointwise("sub", 1.0, y))
        return self._pointwise("mul", g, slope)

    def _tanh_backward_(self, operation: Operation, g: Any, y: Any) -> Any:
        slope = self._pointwise("sub", 1.0, self._pointwise("mul", y, y))
        return self._pointwise("mul", g, slope)

    def _threshold_backward_(self, operation: Operation, g: Any, y: Any, at: float) -> Any:
        return self._pointwise("where", self._pointwise("le", y, at), 0.0, g)

    def _copy__(self, operation: Operation, target: Ref, source: Any, *_: Any) -> Any:
        """PyTorch's own gradients mask a value in place: the value gets a new name."""
        if target.number in self._shared:
            raise Unsupported("its step changes a tensor in place")
        return self._value(source)

    def _zeros_like_(self, operation: Operation, of: Ref, **_: Any) -> Rows:
        return self._filled(operation, 0.0)

    def _ones_like_(self, operation: Operation, of: Ref, **_: Any) -> Rows:
        return self._filled(operation, 1.0)

    def _full_(self, operation: Operation, size: Any, value: float, **_: Any) -> Rows:
        return self._filled(operation, value)

    def _full_like_(self, operation: Operation, of: Ref, value: float, **_: Any) -> Rows:
        return self._filled(operation, value)

    def _scalar_tensor_(self, operation: Operation, value: float, **_: Any) -> Rows:
        return self._constant(value)

    def _new_zeros_(self, operation: Operation, *_: Any, **__: Any) -> Rows:
        return self._filled(operation, 0.0)

    def _new_ones_(self, operation: Operation, *_: Any, **__: Any) -> Rows:
        return self._filled(operation, 1.0)

    def _zeros_(self, operation: Operation, *_: Any, **__: Any) -> Rows:
        return self._filled(operation, 0.0)

    def _ones_(self, operation: Operation, *_: Any, **__: Any) -> Rows:
        return self._filled(operation, 1.0)

    # -- inside ----------------------------------------------------------------------------------

    def _inputs(self, kind: str, numbers: Sequence[int]) -> list[Buffer]:
        made = []
        for k, number in enumerate(numbers):
            shape = self.loop.shapes[number]
            if len(shape) != 2:
                raise Unsupported(f"the loop reads a value of shape {shape}, not a row of units")
            made.append(self._buffer(kind, k, shape[1]))
            self.values[number] = self._whole(made[-1])
        return made

    def _buffer(self, kind: str, index: int, width: int) -> Buffer:
        self.buffers.append(Buffer(kind, index, width))
        return self.buffers[-1]

    def _whole(self, buffer: Buffer) -> Rows:
        return Rows(((self.graph.leaf(buffer), buffer.width),))

    def _constant(self, value: float) -> Rows:
        return Rows(((self.graph.constant(value), 1),))

    def _filled(self, operation: Operation, value: float) -> Rows:
        shape = self.loop.shapes[operation.results[0]]
        return Rows(((self.graph.constant(value), shape[-1] if shape else 1),))

    def _value(self, a: Any) -> Any:
        if isinstance(a, Ref):
            if a.number not in self.values:
                raise Unsupported("its step uses a tensor that is not one of its declared weights")
            return self.values[a.number]
        return self._constant(float(a)) if isinstance(a, (int, float)) else a

    def _rows(self, a: Any) -> Rows:
        value = self._value(a)
        if not isinstance(value, Rows):
            raise Unsupported("a weight matrix is used as if it were a row of units")
        return value

    def _last(self, of: Ref, dim: int) -> Rows:
        shape = self.loop.shapes[of.number]
        if dim not in (-1, len(shape) - 1):
            raise Unsupported("cutting or joining along the batch has no kernel")
        return self._rows(of)
