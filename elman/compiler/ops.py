"""The operations that a step's graph is made of: one row each.

Whatever runs a step, it is lowered to these. Every part of the compiler reads here what it needs to
know of an operation: tracing its names in PyTorch and its gradient, scheduling and the choice of
what is saved its cost, constant folding and evaluation its value, and code for any target its
expression. How one is added is told in ``docs/add-an-operation.md``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, where
from torch._ops import OpOverload


@dataclass(frozen=True, eq=False)
class Op:
    """A pointwise function of numbers and masks.

    Attributes:
        name: what it is called in the graph and in generated code.
        expression: its value in C, of numbers ``{x}``, ``{y}`` and masks ``{m}``, ``{n}``, in the
            order of the arguments. Its operators and functions are those of
            ``runtime/functions.hpp``: of a number by itself as of a vector of them.
        value: PyTorch's function.
        aten: the names of PyTorch's operators that it is, apart by blanks; by default its own.
        cost: 0 where it takes less to compute it again than to store and load it, otherwise 1.
        mask: its value is true or false.
        tame: of numbers that are not very large it is finite, whichever they are, and so is its
            gradient.
        linear: the operands, alone or together, of whose sums it is the sum: of x and y together
            ``"xy"``, of either alone ``"x y"``.
        gradient: where PyTorch has an operator for its gradient alone, that operator's name, and
            how it is written in others that have rows. Elsewhere PyTorch's formula is made of
            such operators as it is.
    """

    name: str
    expression: str
    value: Callable[..., Tensor]
    aten: str = ""
    cost: int = 1
    mask: bool = False
    tame: bool = False
    linear: str = ""
    gradient: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)

    @cached_property
    def operands(self) -> str:
        """A letter for each argument."""
        return "".join(dict.fromkeys(re.findall(r"{(\w)}", self.expression)))

    def __call__(self, *arguments: Tensor) -> Tensor:
        """Its value in double precision; masks and numbers stand for each other, 0 for false."""
        kinds = zip(self.operands, arguments, strict=True)
        return self.value(*(a != 0 if kind in "mn" else a.double() for kind, a in kinds))


_ROWS = (
    # -- arithmetic
    Op("add", "{x} + {y}", torch.add, cost=0, tame=True, linear="xy"),
    Op("sub", "{x} - {y}", torch.sub, cost=0, tame=True, linear="xy"),
    Op("mul", "{x} * {y}", torch.mul, cost=0, tame=True, linear="x y"),
    Op("div", "{x} / {y}", torch.div, linear="x"),
    Op("neg", "-{x}", torch.neg, cost=0, tame=True, linear="x"),
    Op("reciprocal", "reciprocal({x})", torch.reciprocal),
    Op("sqrt", "sqrt({x})", torch.sqrt),
    Op("rsqrt", "rsqrt({x})", torch.rsqrt),
    Op("abs", "abs({x})", torch.abs, cost=0, tame=True),
    Op("sign", "sign({x})", torch.sign, aten="sign sgn", tame=True),
    Op("copysign", "copysign({x}, {y})", torch.copysign, cost=0, tame=True),
    Op("floor", "floor({x})", torch.floor, tame=True),
    Op("round", "round({x})", torch.round, tame=True),
    Op("maximum", "maximum({x}, {y})", torch.maximum, cost=0, tame=True),
    Op("minimum", "minimum({x}, {y})", torch.minimum, cost=0, tame=True),
    # -- activations
    Op("relu", "relu({x})", torch.relu, cost=0, tame=True,
       gradient={"threshold_backward": lambda g, y, at: where(y <= at, 0.0, g)}),
    Op("sigmoid", "sigmoid({x})", torch.sigmoid, tame=True,
       gradient={"sigmoid_backward": lambda g, y: g * (y * (1 - y))}),
    Op("tanh", "tanh({x})", torch.tanh, tame=True,
       gradient={"tanh_backward": lambda g, y: g * (1 - y * y)}),
    # -- other functions
    Op("exp", "exp({x})", torch.exp),
    Op("exp2", "exp2({x})", torch.exp2),
    Op("expm1", "expm1({x})", torch.expm1),
    Op("log", "log({x})", torch.log),
    Op("log1p", "log1p({x})", torch.log1p),
    Op("sin", "sin({x})", torch.sin, tame=True),
    Op("cos", "cos({x})", torch.cos, tame=True),
    Op("asin", "asin({x})", torch.asin),
    Op("acos", "acos({x})", torch.acos),
    Op("atan", "atan({x})", torch.atan, tame=True),
    Op("atan2", "atan2({x}, {y})", torch.atan2),
    Op("sinh", "sinh({x})", torch.sinh),
    Op("cosh", "cosh({x})", torch.cosh),
    Op("asinh", "asinh({x})", torch.asinh, tame=True),
    Op("acosh", "acosh({x})", torch.acosh),
    Op("atanh", "atanh({x})", torch.atanh),
    Op("erf", "erf({x})", torch.erf, tame=True),
    Op("erfc", "erfc({x})", torch.erfc, tame=True),
    # -- comparisons, and what is done with them
    Op("lt", "{x} < {y}", torch.lt, cost=0, mask=True, tame=True),
    Op("le", "{x} <= {y}", torch.le, cost=0, mask=True, tame=True),
    Op("gt", "{x} > {y}", torch.gt, cost=0, mask=True, tame=True),
    Op("ge", "{x} >= {y}", torch.ge, cost=0, mask=True, tame=True),
    Op("eq", "{x} == {y}", torch.eq, cost=0, mask=True, tame=True),
    Op("ne", "{x} != {y}", torch.ne, cost=0, mask=True, tame=True),
    Op("and", "{m} & {n}", torch.logical_and, aten="logical_and bitwise_and __and__",
       cost=0, mask=True, tame=True),
    Op("or", "{m} | {n}", torch.logical_or, aten="logical_or bitwise_or __or__",
       cost=0, mask=True, tame=True),
    Op("xor", "{m} ^ {n}", torch.logical_xor, aten="logical_xor bitwise_xor __xor__",
       cost=0, mask=True, tame=True),
    Op("not", "logical_not({m})", torch.logical_not, aten="logical_not bitwise_not",
       cost=0, mask=True, tame=True),
    Op("where", "where({m}, {x}, {y})", torch.where, cost=0, tame=True),
)  # fmt: skip

OPS: Mapping[str, Op] = {op.name: op for op in _ROWS}
"""The rows by their names."""

_ATEN: Mapping[str, Op] = {name: op for op in _ROWS for name in (op.aten or op.name).split()}

GRADIENTS: Mapping[str, Callable[..., Tensor]] = {
    name: rule for op in _ROWS for name, rule in op.gradient.items()
}
"""The rows' gradients by the names of PyTorch's operators."""


@dataclass(frozen=True)
class Reduction:
    """A reduction of a row to one number.

    Attributes:
        name: what it is called in the graph; in C, two functions: of what there is so far and
            more, and of what there is in the end, for all units at once.
        start: what there is before the first unit.
        value: PyTorch's function over the last axis.
    """

    name: str
    start: float
    value: Callable[[Tensor], Tensor]


REDUCTIONS: Mapping[str, Reduction] = {
    "row_sum": Reduction("row_sum", 0.0, lambda rows: rows.sum(-1, keepdim=True)),
    "row_max": Reduction("row_max", -math.inf, lambda rows: rows.amax(-1, keepdim=True)),
}
"""The reductions by their names."""


def name_of(operator: OpOverload) -> str:
    """An operator's name without its overload: of ``aten::add.Tensor``, ``add``."""
    return operator.name().split("::")[1].split(".")[0]


def op_of(function: Any) -> Op | None:
    """The row of an operator of PyTorch's; None for what has none, elman's own among it."""
    return _ATEN.get(name_of(function)) if isinstance(function, OpOverload) else None


# -- operators without arithmetic

aten = torch.ops.aten

VIEWS = frozenset(
    {
        aten.split.Tensor, aten.split_with_sizes.default, aten.slice.Tensor, aten.t.default,
        aten.permute.default, aten.transpose.int, aten.view.default, aten.unsqueeze.default,
        aten.squeeze.dim, aten.expand.default, aten.alias.default,
        aten._unsafe_view.default, aten.unbind.int, aten.select.int, aten.narrow.default,
    }
)  # fmt: skip
"""Operations that move no data: the loop reads through them, so they are never hoisted."""

SHAPED = frozenset(
    {
        aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.full.default,
        aten.zeros.default, aten.ones.default, aten.empty.memory_format, aten.new_full.default,
        aten.new_zeros.default, aten.new_ones.default, aten.new_empty.default,
    }
)  # fmt: skip
"""Operations whose numbers are sizes, the batch's among them."""

FILLS = frozenset(
    {aten.full.default, aten.zeros.default, aten.ones.default, aten.scalar_tensor.default}
)
"""Operations that make one number out of nothing: the loop has it as a constant."""
