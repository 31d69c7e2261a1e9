"""What a pointwise function computes, as C++ that is the same for every target.

It names the operations of the table (``ops.py``) and no other, and is generic over the type of a
value: a vector of units, a unit by itself, what a thread of a GPU has of them. How units are gone
through, read and written is the target's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

from elman.compiler.ir import Node
from elman.compiler.ops import OPS
from elman.compiler.schedule import Function


@dataclass(frozen=True)
class Part:
    """Some of a function's nodes, each after its arguments.

    Attributes:
        inputs: what they are computed of, another value for each unit.
        common: likewise, one value for all units of a row.
        nodes: what is computed.
        outputs: what of it, or of the inputs, is written or used elsewhere.
    """

    inputs: Sequence[Node]
    common: Sequence[Node]
    nodes: Sequence[Node]
    outputs: Sequence[Node]


def parts(function: Function) -> tuple[Part, Part]:
    """What is computed once a row, being the same for all its units; and what for each unit."""
    common = {n for n in (*function.loads, *function.nodes) if n.width == 1 < function.width}
    once = [n for n in function.nodes if n in common]
    each = [n for n in function.nodes if n not in common]
    wanted = [n for _, n, _ in function.stores] + [n.args[0] for _, n in function.reductions]
    wanted = [n for n in dict.fromkeys(wanted) if n.op != "constant"]
    given = [n for n in dict.fromkeys(a for n in each for a in n.args) if n in common]
    read = [n for n in function.loads if any(n in m.args for m in once)]
    loads = [n for n in function.loads if n not in common]
    row = Part([], read, once, [n for n in once if n in given or n in wanted])
    return row, Part(loads, given, each, [n for n in wanted if n not in common])


def definitions(name: str, function: Function) -> list[str]:
    """What a function computes: ``<name>_row`` once a row, ``<name>_units`` for each unit of it.

    X is the type of a unit's value, V and Mask are those of a value that all units of a row have in
    common. What is computed is given back in the last arguments.
    """
    row, units = parts(function)
    made = []
    if row.nodes:
        results = [(common_type(n), n.name) for n in row.outputs]
        made.append(_definition(f"{name}_row", row, results))
    if units.outputs:
        results = [("X", number(n)) for n in units.outputs]
        made.append("template <class X>\n" + _definition(f"{name}_units", units, results))
    return made


def _definition(name: str, part: Part, results: Sequence[tuple[str, str]]) -> str:
    parameters = [
        *(f"X {n.name}" for n in part.inputs),
        *(f"{common_type(n)} {n.name}" for n in part.common),
        *(f"{kind}& y{k}" for k, (kind, _) in enumerate(results)),
    ]
    lines = [
        call(f"ELMAN_INLINE void {name}", parameters, " {"),
        *(f"  const auto {n.name} = {expression(n)};" for n in part.nodes),
        *(f"  y{k} = {value};" for k, (_, value) in enumerate(results)),
    ]
    return "\n".join([*lines, "}"])


def common_type(node: Node) -> str:
    """The type of a value that all units of a row have in common."""
    return "Mask" if node.is_mask else "V"


def call(function: str, arguments: Sequence[str], end: str) -> str:
    """A call or its like, in lines of a length that can be read."""
    text = f"{function}({', '.join(a.replace(' ', _JOINED) for a in arguments)}){end}"
    return fill(text, 100, subsequent_indent="        ").replace(_JOINED, " ")


_JOINED = "\u00a0"  # is no place for a new line


def expression(node: Node) -> str:
    """The value of an operation, of its arguments' names."""
    op = OPS[node.op]
    kinds = zip(op.operands, node.args, strict=True)
    return op.expression.format_map({k: mask(a) if k in "mn" else number(a) for k, a in kinds})


def number(node: Node) -> str:
    """A value as a number: of a mask 1 or 0."""
    if node.op == "constant":
        value = node.attribute
        infinite = f"{'-' if value < 0 else ''}INFINITY"
        return (
            f"splat({'NAN' if value != value else infinite if math.isinf(value) else repr(value)})"
        )
    return f"real_of({node.name})" if node.is_mask else node.name


def mask(node: Node) -> str:
    """A value as a mask: of a number whether it is another than 0."""
    return node.name if node.is_mask else f"({number(node)} != splat(0))"
