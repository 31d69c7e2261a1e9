"""The step as the compiler sees it: pointwise nodes over a row's units, and the memory between.

A value of a step is a row of units for each sequence of the batch. It is computed by *nodes*:
pointwise functions of other nodes of the same width, reductions of a row to one number, constants,
and *leaves*, which read a slice of a *buffer*. Whatever slices and concatenates rows is worked out
here, so that the nodes never move data; whatever multiplies by a matrix reads a buffer and fills
one, so that the nodes never multiply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from elman.compiler.ops import OPS, REDUCTIONS


@dataclass(eq=False)
class Buffer:
    """Rows in memory.

    Attributes:
        kind: what it is, which says where it lies:
            ``sequence`` an input of every step; ``vector`` a weight for each unit;
            ``state`` a state before the step; ``new`` the same state after it, in the backward
            pass; ``cotangent`` the gradient of a state after the step; ``saved`` a value that
            the forward pass keeps for the backward pass; ``product`` the output of a linear map;
            ``local`` any other value that is needed in memory.
        index: which of its kind.
        width: how many units a row has.
        series: a row for each step, not only for the present one.
        stores: what is written to it: (offset, node).
        product: how it is computed, for a ``product``.
    """

    kind: str
    index: int
    width: int
    series: bool = False
    stores: list[tuple[int, Node]] = field(default_factory=list)
    product: Product | None = None

    @property
    def name(self) -> str:
        """A name for people."""
        return f"{self.kind}{self.index}"


@dataclass(frozen=True, eq=False)
class Product:
    """Rows of ``source`` times the weight matrix number ``weight``, transposed or as it is."""

    source: Buffer
    weight: int
    transposed: bool


@dataclass(frozen=True, eq=False)
class Node:
    """One value of one row: of an operation of ``ops.py``, a constant, or a leaf."""

    op: str
    args: tuple[Node, ...]
    width: int
    attribute: Any
    number: int

    @property
    def name(self) -> str:
        """Its name in the generated code."""
        return f"{self.buffer.name if self.op == 'leaf' else self.op}_{self.number}"

    @property
    def is_mask(self) -> bool:
        """Whether it is true or false."""
        return self.op in OPS and OPS[self.op].mask

    @property
    def cost(self) -> int:
        """What its operation takes by itself: see :class:`elman.compiler.ops.Op`."""
        return OPS[self.op].cost if self.op in OPS else 0

    @property
    def is_cheap(self) -> bool:
        """Whether it is an operation that takes next to nothing."""
        return self.op in OPS and not self.cost

    @property
    def buffer(self) -> Buffer:
        """The buffer that a leaf reads."""
        assert self.op == "leaf"
        buffer: Buffer = self.attribute[0]
        return buffer

    @property
    def offset(self) -> int:
        """The first unit that a leaf reads."""
        offset: int = self.attribute[1]
        return offset


class Graph:
    """Nodes, each different from the others: asking for the same node again gives the first.

    A node of width 1 can be combined with any other; it is then the same for every unit. A
    constant has width 0.
    """

    def __init__(self) -> None:
        self._nodes: dict[Any, Node] = {}

    def leaf(self, buffer: Buffer, offset: int = 0, width: int | None = None) -> Node:
        """``width`` units of a buffer from ``offset`` on; all of them by default."""
        return self._node("leaf", (), width or buffer.width, (buffer, offset))

    def constant(self, value: float) -> Node:
        """The same number for every unit."""
        return self._node("constant", (), 0, float(value))

    def op(self, name: str, *args: Node) -> Node:
        """A pointwise function."""
        same = _simplified(name, args)
        if same is not None:
            return same
        if all(a.op == "constant" for a in args):
            numbers = [torch.tensor(a.attribute, dtype=torch.float64) for a in args]
            return self.constant(OPS[name](*numbers).item())
        return self._node(name, args, max(a.width for a in args), None)

    def reduce(self, name: str, arg: Node) -> Node:
        """A reduction over the units of a row."""
        return self._node(name, (arg,), 1, None)

    def part(self, node: Node, offset: int, width: int) -> Node:
        """The units from ``offset`` on of a node."""
        if node.width <= 1 or (offset == 0 and width == node.width):
            return node
        if node.op == "leaf":
            return self.leaf(node.buffer, node.offset + offset, width)
        return self.op(node.op, *(self.part(a, offset, width) for a in node.args))

    def rebuilt(self, node: Node, args: Sequence[Node]) -> Node:
        """``node`` computed from other arguments."""
        return self.reduce(node.op, *args) if is_reduction(node) else self.op(node.op, *args)

    def _node(self, op: str, args: tuple[Node, ...], width: int, attribute: Any) -> Node:
        marks = (id(attribute[0]), attribute[1]) if op == "leaf" else attribute
        if op == "constant":
            marks = attribute.hex()  # tells −0 from 0, and NaN is itself
        key = (op, tuple(map(id, args)), width, marks)
        if key not in self._nodes:
            self._nodes[key] = Node(op, args, width, attribute, len(self._nodes))
        return self._nodes[key]


def _simplified(name: str, args: tuple[Node, ...]) -> Node | None:
    def is_constant(node: Node, value: float) -> bool:
        same = node.op == "constant" and node.attribute == value
        return same and math.copysign(1, node.attribute) == math.copysign(1, value)

    if name == "where" and args[0].op == "constant":
        return args[1] if args[0].attribute else args[2]
    # −0 + 0 is 0: what adds nothing to any number is −0.
    if name == "add" and is_constant(args[0], -0.0):
        return args[1]
    if (name == "add" and is_constant(args[1], -0.0)) or (
        name == "sub" and is_constant(args[1], 0.0)
    ):
        return args[0]
    if name == "mul" and is_constant(args[0], 1.0):
        return args[1]
    if name in ("mul", "div") and is_constant(args[1], 1.0):
        return args[0]
    return None


def is_reduction(node: Node) -> bool:
    """Whether a node needs the whole row before anything that uses it can begin."""
    return node.op in REDUCTIONS


def walk(roots: Iterable[Node]) -> Iterator[Node]:
    """Every node that ``roots`` are computed from, each after its arguments."""
    seen: set[int] = set()
    stack = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args))


def unknown(
    node: Node, known: Container[Node], args: Callable[[Node], Sequence[Node]]
) -> Iterator[Node]:
    """What is not yet known of ``node`` and of what it is computed from, each after its ``args``.

    Whoever iterates makes each known. A chain of a thousand operations is as deep as any: no
    function may call itself for every one of them.
    """
    stack = [(node, False)]
    while stack:
        each, ready = stack.pop()
        if each in known:
            continue
        if ready:
            yield each
        else:
            stack.append((each, True))
            stack.extend((a, False) for a in reversed(args(each)))


@dataclass(frozen=True)
class Value:
    """A value (B, width), or (width,) where it is the same for the batch: its pieces in order.

    Attributes:
        pieces: (node, width) for each piece.
        summed: it is the sum of these rows over the batch and over time: a weight's gradient.
    """

    pieces: tuple[tuple[Node, int], ...]
    summed: bool = False

    @property
    def width(self) -> int:
        """How many units it has."""
        return sum(width for _, width in self.pieces)

    def cut(self, graph: Graph, ends: Sequence[int]) -> tuple[tuple[Node, int], ...]:
        """The same value in pieces that end at ``ends`` (which include all its own ends)."""
        pieces, begin, at = [], 0, iter(ends)
        for node, width in self.pieces:
            inside = 0
            while inside < width:
                size = next(at) - begin - inside
                pieces.append((graph.part(node, inside, size), size))
                inside += size
            begin += width
        return tuple(pieces)

    def part(self, graph: Graph, start: int, stop: int) -> Value:
        """The units from ``start`` to ``stop``."""
        ends = sorted({start, stop, *_ends(self)} - {0})
        kept, begin = [], 0
        for (node, width), end in zip(self.cut(graph, ends), ends, strict=True):
            if begin >= start and end <= stop:
                kept.append((node, width))
            begin = end
        return Value(tuple(kept), self.summed)


def _ends(rows: Value) -> list[int]:
    ends, at = [], 0
    for _, width in rows.pieces:
        at += width
        ends.append(at)
    return ends


def pointwise(graph: Graph, name: str, args: Sequence[Value], summed: bool = False) -> Value:
    """A pointwise function of values, some of which may be one unit wide or constant."""
    width = max(rows.width for rows in args)
    wide = [rows for rows in args if rows.width == width]
    ends = sorted({end for rows in wide for end in _ends(rows)})
    sizes = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    columns = [
        [node for node, _ in rows.cut(graph, ends)]
        if rows.width == width
        else [rows.pieces[0][0]] * len(ends)
        for rows in args
    ]
    nodes = [graph.op(name, *nodes) for nodes in zip(*columns, strict=True)]
    return Value(tuple(zip(nodes, sizes, strict=True)), summed)
