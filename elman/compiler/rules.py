"""What single aten operations are in the compiler's graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from elman.compiler.ir import Buffer, Graph, Value, pointwise
from elman.compiler.loop import Loop
from elman.compiler.ops import OPS
from elman.compiler.record import Operation, Ref, Unsupported


@dataclass(frozen=True)
class Matrix:
    """A weight matrix, or its transpose."""

    weight: int
    transposed: bool


@dataclass(frozen=True)
class Turned:
    """Rows as columns: (width, B)."""

    rows: Value


@dataclass(frozen=True)
class Outer:
    """Σ over time and batch of aᵀ b for each pair (a, b): the gradient of a weight matrix."""

    pairs: tuple[tuple[Value, Value], ...]

    def turned(self) -> Outer:
        """Its transpose."""
        return Outer(tuple((b, a) for a, b in self.pairs))


MOST_FACTORS = 64
"""Whole powers up to this one are products."""


class Rules:
    """The values of a loop's operations; a method ``_<name>_`` for what is no single node."""

    def __init__(self, loop: Loop):
        self.loop = loop
        self.graph = Graph()
        self.values: dict[int, Any] = {}
        self.locals: dict[Any, Buffer] = {}
        self.products: dict[Any, Buffer] = {}
        self.buffers: list[Buffer] = []
        self._shared: set[int] = set()  # inputs, views and what has views

    def _pointwise(self, name: str, *args: Any) -> Any:
        values = [self._value(a) for a in args]
        if any(isinstance(v, Outer) for v in values):
            return self._outer(name, values)
        for v in values:
            if not isinstance(v, Value):
                raise Unsupported(f"{name} of a weight matrix inside the loop has no kernel")
        op = OPS[name]
        summed = "".join(kind for kind, v in zip(op.operands, values, strict=True) if v.summed)
        if summed:
            # A sum passes through what is linear in it, and the same for every row.
            others = [node for v in values if not v.summed for node, _ in v.pieces]
            if summed not in op.linear.split() or any(n.op != "constant" for n in others):
                raise Unsupported(f"{name} of a sum over the batch has no kernel")
        return pointwise(self.graph, name, values, bool(summed))

    def _outer(self, name: str, values: list[Any]) -> Outer:
        if name != "add" or not all(isinstance(v, Outer) for v in values):
            raise Unsupported(f"{name} of a weight's gradient has no kernel")
        return Outer(tuple(pair for v in values for pair in v.pairs))

    # -- reductions ------------------------------------------------------------------------------

    def _sum_(
        self, operation: Operation, of: Ref, dims: Sequence[int] = (), keep: bool = False, **_: Any
    ) -> Value:
        rows, shape = self._rows(of), self.loop.shapes[of.number]
        axes = {d % len(shape) for d in dims} if dims else set(range(len(shape)))
        if len(shape) == 2 and axes == {0}:
            return Value(rows.pieces, True)
        if axes == {len(shape) - 1} and (keep or len(shape) == 1):
            return self._row_sum(rows)
        if len(shape) == 2 and axes == {0, 1}:
            return Value(self._row_sum(rows).pieces, True)
        raise Unsupported("a sum that drops the units' axis has no kernel: keep it (keepdim=True)")

    def _row_sum(self, rows: Value) -> Value:
        total = self.graph.constant(-0.0)
        for node, width in rows.pieces:
            if width == 1:
                part = node
            elif node.width <= 1:
                part = self.graph.op("mul", node, self.graph.constant(width))
            else:
                part = self.graph.reduce("row_sum", node)
            total = self.graph.op("add", total, part)
        return Value(((total, 1),), rows.summed)

    def _mean_(
        self, operation: Operation, of: Ref, dims: Sequence[int] = (), keep: bool = False, **_: Any
    ) -> Value:
        shape = self.loop.shapes[of.number]
        if {d % len(shape) for d in dims} != {len(shape) - 1} and len(shape) > 1:
            raise Unsupported("a mean over the batch has no kernel")
        total = self._sum_(operation, of, dims, keep)
        count = self._constant(1.0 / self.loop.shapes[of.number][-1])
        return pointwise(self.graph, "mul", [total, count], total.summed)

    def _amax_(
        self, operation: Operation, of: Ref, dims: Sequence[int] = (), keep: bool = False
    ) -> Value:
        rows = self._last(of, dims[0] if len(dims) == 1 else 0)
        if not keep:
            raise Unsupported("a maximum that drops the units' axis has no kernel: keep it")
        best = None
        for node, width in rows.pieces:
            one = node if width == 1 or node.width <= 1 else self.graph.reduce("row_max", node)
            best = one if best is None else self.graph.op("maximum", best, one)
        assert best is not None
        return Value(((best, 1),))

    def _var_(
        self, operation: Operation, of: Ref, dims: Any = None, *, correction: Any = 1,
        keepdim: bool = False,
    ) -> Value:  # fmt: skip
        return self._var_mean_(
            operation, of, dims, correction=correction, keepdim=keepdim
        )[0]  # fmt: skip

    def _var_mean_(
        self, operation: Operation, of: Ref, dims: Any = None, *, correction: Any = 1,
        keepdim: bool = False,
    ) -> list[Value]:  # fmt: skip
        size = self.loop.shapes[of.number][-1]
        mean = self._mean_(operation, of, dims or (), keepdim)
        off = self._pointwise("sub", self._rows(of), mean)
        squares = self._row_sum(self._pointwise("mul", off, off))
        count = size - (1 if correction is None else correction)
        scale = self._constant(1.0 / count if count > 0 else math.inf)  # as PyTorch divides by 0
        return [self._pointwise("mul", squares, scale), mean]

    # -- pointwise functions that are more than one node -----------------------------------------

    def _add_(self, operation: Operation, a: Any, b: Any, alpha: Any = 1) -> Any:
        return self._pointwise("add", a, b if alpha == 1 else self._pointwise("mul", b, alpha))

    def _sub_(self, operation: Operation, a: Any, b: Any, alpha: Any = 1) -> Any:
        return self._pointwise("sub", a, b if alpha == 1 else self._pointwise("mul", b, alpha))

    def _rsub_(self, operation: Operation, a: Any, b: Any, alpha: Any = 1) -> Any:
        return self._pointwise("sub", b, a if alpha == 1 else self._pointwise("mul", a, alpha))

    def _pow_(self, operation: Operation, a: Any, b: Any) -> Any:
        if isinstance(a, (int, float)) and a > 0 and isinstance(b, Ref):
            if a == 2:  # a rounded logarithm would cost digits
                return self._pointwise("exp2", b)
            return self._pointwise("exp", self._pointwise("mul", b, math.log(a)))
        if not isinstance(b, (int, float)):
            raise Unsupported("a power whose exponent is no number has no kernel")
        if b in (0.5, -0.5, -1):
            return self._pointwise({0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}[b], a)
        if b != int(b) or abs(b) > MOST_FACTORS:
            if b == int(b):
                raise Unsupported(f"a power of more than {MOST_FACTORS} has no kernel")
            power = self._pointwise("mul", self._pointwise("log", a), b)  # of less than 0: NaN
            return self._pointwise("exp", power)
        if b < 0:
            return self._pointwise("reciprocal", self._pow_(operation, a, -b))
        power = self._constant(1.0)
        for digit in f"{int(b):b}":
            power = self._pointwise("mul", power, power)
            power = self._pointwise("mul", power, a) if digit == "1" else power
        return power

    def _round_(self, operation: Operation, a: Any, *, decimals: int = 0) -> Any:
        scale = 10.0 ** abs(decimals)
        up, down = ("mul", "div") if decimals > 0 else ("div", "mul")
        return self._pointwise(down, self._pointwise("round", self._pointwise(up, a, scale)), scale)

    def _clamp_(self, operation: Operation, a: Any, low: Any = None, high: Any = None) -> Any:
        if low is not None:
            a = self._pointwise("maximum", a, low)
        return a if high is None else self._pointwise("minimum", a, high)

    def _clamp_min_(self, operation: Operation, a: Any, low: Any) -> Any:
        return self._pointwise("maximum", a, low)

    def _clamp_max_(self, operation: Operation, a: Any, high: Any) -> Any:
        return self._pointwise("minimum", a, high)

    def _copy__(self, operation: Operation, target: Ref, source: Any, *_: Any) -> Any:
        """PyTorch's own gradients mask a value in place: the value gets a new name."""
        if target.number in self._shared:
            raise Unsupported("its step changes a tensor in place")
        return self._value(source)

    def _zeros_like_(self, operation: Operation, of: Ref, **_: Any) -> Value:
        return self._filled(operation, 0.0)

    def _ones_like_(self, operation: Operation, of: Ref, **_: Any) -> Value:
        return self._filled(operation, 1.0)

    def _full_(self, operation: Operation, size: Any, value: float, **_: Any) -> Value:
        return self._filled(operation, value)

    def _full_like_(self, operation: Operation, of: Ref, value: float, **_: Any) -> Value:
        return self._filled(operation, value)

    def _scalar_tensor_(self, operation: Operation, value: float, **_: Any) -> Value:
        return self._filled(operation, value)

    def _to_copy_(self, operation: Operation, of: Ref, **_: Any) -> Any:
        """Another type, where that changes no number."""
        before, after = (self.loop.types[n] for n in (of.number, operation.results[0]))
        if before == after or (not before.is_floating_point and before != torch.bool):
            return self._value(of)
        if after == torch.float64 and before != torch.bool:
            return self._value(of)
        if after == torch.bool:
            return self._pointwise("ne", of, 0.0)
        if before == torch.bool:
            return self._pointwise("where", of, 1.0, 0.0)
        raise Unsupported(f"its step turns a value from {before} into {after}")

    def _new_zeros_(self, operation: Operation, *_: Any, **__: Any) -> Value:
        return self._filled(operation, 0.0)

    def _new_ones_(self, operation: Operation, *_: Any, **__: Any) -> Value:
        return self._filled(operation, 1.0)

    def _zeros_(self, operation: Operation, *_: Any, **__: Any) -> Value:
        return self._filled(operation, 0.0)

    def _efficientzerotensor_(self, operation: Operation, *_: Any, **__: Any) -> Value:
        return self._filled(operation, 0.0)

    def _ones_(self, operation: Operation, *_: Any, **__: Any) -> Value:
        return self._filled(operation, 1.0)

    # -- inside ----------------------------------------------------------------------------------

    def _buffer(self, kind: str, index: int, width: int) -> Buffer:
        self.buffers.append(Buffer(kind, index, width))
        return self.buffers[-1]

    def _whole(self, buffer: Buffer) -> Value:
        return Value(((self.graph.leaf(buffer), buffer.width),))

    def _constant(self, value: float) -> Value:
        return Value(((self.graph.constant(value), 1),))

    def _filled(self, operation: Operation, value: float) -> Value:
        number = operation.results[0]
        shape, kind = self.loop.shapes[number], self.loop.types[number]
        exact = torch.tensor(value, dtype=kind).item()  # as PyTorch fills it, in its own type
        return Value(((self.graph.constant(float(exact)), shape[-1] if shape else 1),))

    def _value(self, a: Any) -> Any:
        if isinstance(a, Ref):
            if a.number not in self.values:
                raise Unsupported("its step uses a tensor that is not one of its declared weights")
            return self.values[a.number]
        return self._constant(float(a)) if isinstance(a, (int, float)) else a

    def _rows(self, a: Any) -> Value:
        value = self._value(a)
        if not isinstance(value, Value):
            raise Unsupported("a weight matrix is used as if it were a row of units")
        return value

    def _last(self, of: Ref, dim: int) -> Value:
        shape = self.loop.shapes[of.number]
        if dim not in (-1, len(shape) - 1):
            raise Unsupported("cutting or joining along the batch has no kernel")
        return self._rows(of)
