"""The three programs of a cell: forward, forward that keeps what the gradient needs, backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from elman.cells.lines import at
from elman.compiler.ir import Buffer, Node, Value, is_reduction, unknown
from elman.compiler.lower import LoweredStep, Lowering, Outer
from elman.compiler.record import Unsupported
from elman.compiler.schedule import Program, Target, schedule, stores_of


@dataclass
class Pair:
    """A contribution to a weight matrix's gradient: Σ leftᵀ right over time and batch.

    ``None`` on either side is the state ``state`` before each step.
    """

    left: Buffer | None
    right: Buffer | None
    state: int = 0


@dataclass
class Plan:
    """A cell's loop, ready to be emitted and run.

    Attributes:
        saved: the buffers that the forward pass fills for the backward pass, with their order.
        kept: the indices of the sequences that the backward pass reads again.
        sequence_gradients: the series buffer with each sequence's gradient, or None for zero.
        vector_gradients: by parameter: a series buffer to sum over time and batch, or an
            accumulator to sum over the batch.
        matrix_gradients: by parameter: the pairs that it is the sum of.
    """

    step: LoweredStep
    forward: Program
    train: Program
    backward: Program
    saved: list[Buffer]
    kept: list[int]
    sequence_gradients: list[Buffer | None]
    vector_gradients: dict[int, Buffer]
    matrix_gradients: dict[int, list[Pair]]


MOST_OPERATIONS, MOST_NODES = 4_000, 500
"""The largest step and its largest function that are compiled, which takes ten seconds or so.

A C++ compiler's time grows faster than a function does."""


def plan(lowering: Lowering) -> Plan:
    """Decide what to save, and schedule the three programs.

    Raises:
        Unsupported: the step has something without a kernel, or is too long to be compiled.
    """
    _check_size(lowering, len(lowering.loop.operations), MOST_OPERATIONS)
    try:
        return _plan(lowering)
    except RecursionError:
        raise Unsupported("its step is too long a chain of operations to be compiled") from None


def _plan(lowering: Lowering) -> Plan:
    step = lowering.step()
    graph = step.graph
    after = [Buffer("after", k, b.width) for k, b in enumerate(step.states)]
    new_targets = [
        t for buffer, rows in zip(after, step.new, strict=True) for t in _targets(buffer, rows)
    ]
    forward = _scheduled(lowering, new_targets)

    targets: list[Target] = []
    matrices: dict[int, list[Pair]] = {}
    vectors: dict[int, Buffer] = {}
    sequence_gradients: list[Buffer | None] = []
    for rows in step.sequence_gradients:
        sequence_gradients.append(None if rows is None else _series(lowering, rows))
    for k, gradient in enumerate(step.parameter_gradients):
        if isinstance(gradient, Outer):
            matrices[k] = [_pair(lowering, a, b) for a, b in gradient.pairs]
    for k, gradient in enumerate(step.parameter_gradients):
        if isinstance(gradient, Value):
            # Rows that are written for each step anyway are summed afterwards, in one pass.
            found = lowering.find(Value(gradient.pieces))
            vectors[k] = found if found is not None and found.series else _sum(gradient, k, targets)
    for buffer, gradient in zip(after, step.state_gradients, strict=True):
        if gradient is None:
            targets.append(Target(buffer, 0, graph.constant(0.0), buffer.width))
        else:
            targets += _targets(buffer, gradient)
    series = [b for b in lowering.buffers if b.kind == "local" and b.series]
    dependence = Dependence()
    backward_series = [b for b in series if dependence.of_buffer(b)]
    forward_series = [b for b in series if b not in backward_series]
    for buffer in backward_series:
        targets += stores_of(buffer, lambda node: node)

    saving = Saving(step, forward_series, dependence)
    pairs = [pair for each in matrices.values() for pair in each]
    for side in (side for pair in pairs for side in (pair.left, pair.right)):
        if side is not None and side.kind == "sequence":
            saving.kept.add(side.index)
    backward = _scheduled(lowering, targets, saving.replace)
    train_targets = [t for b in saving.fresh for t in stores_of(b, lambda node: node)]
    train_targets += [t for b in forward_series for t in stores_of(b, lambda node: node)]
    return Plan(
        step,
        forward,
        _scheduled(lowering, [*new_targets, *train_targets]),
        backward,
        [*saving.fresh, *forward_series],
        sorted(saving.kept),
        sequence_gradients,
        vectors,
        matrices,
    )


def _scheduled(
    lowering: Lowering,
    targets: Sequence[Target],
    replace: Callable[[Node], Node] = lambda node: node,
) -> Program:
    """The program that writes ``targets``, if its functions are not too long to be compiled."""
    program = schedule(lowering.graph, targets, replace)
    longest = max((len(f.nodes) for _, functions in program.stages for f in functions), default=0)
    _check_size(lowering, longest, MOST_NODES)
    return program


def _check_size(lowering: Lowering, size: int, most: int) -> None:
    if size > most:
        lines = Counter(o.line for o in lowering.loop.operations if o.line).most_common(1)
        raise Unsupported(
            f"its step and its gradient take {size:,} operations, of which at most {most:,} are "
            f"compiled together{at(lines[0][0]) if lines else ''}"
        )


def in_place(plan: Plan, owned: Sequence[int]) -> dict[Buffer, tuple[int, int]]:
    """Where saved values may take the place of the input's maps that they are computed from.

    That is so where the function that writes the value is the only one that reads these units of
    the sequence, the backward pass does not, and values fill the sequence: else more than is
    needed would be kept. (Products of a sequence are made before the loop.)

    Args:
        plan: of the cell.
        owned: the sequences that only the loop reads.

    Returns:
        For saved buffers the number of a sequence, and the unit from which on it holds the value.
    """
    free = set(owned) - set(plan.kept)
    reads = [
        (function, *function.slots[slot], leaf.width)
        for function in plan.train.functions
        for leaf, slot in function.loads.items()
        if function.slots[slot][0].kind == "sequence"
    ]
    alone = []
    for function, sequence, offset, width in reads:
        overlap = (s == sequence and o < offset + width and offset < o + w for _, s, o, w in reads)
        if sequence.index in free and sum(overlap) == 1:
            alone.append((function, (sequence.index, offset), width))
    places: dict[Buffer, tuple[int, int]] = {}
    for function in plan.train.functions:
        for slot, _, _ in function.stores:
            buffer = function.slots[slot][0]
            if buffer not in plan.saved or buffer.width != function.width:
                continue
            for reader, place, width in alone:
                if reader is function and width == buffer.width and place not in places.values():
                    places[buffer] = place
                    break
    filled = Counter[int]()
    for buffer, (number, _) in places.items():
        filled[number] += buffer.width
    widths = {sequence.index: sequence.width for _, sequence, _, _ in reads}
    return {b: place for b, place in places.items() if filled[place[0]] == widths[place[0]]}


class Saving:
    """Chooses which forward values the backward pass loads and which it computes again.

    States before and after a step are there anyway. A value that costs at most one expensive
    function of what is there is computed again; the outputs of expensive functions, of products
    and of reductions are saved; a cheap function of one saved value is computed again, of several
    it is saved in their place.
    """

    def __init__(self, step: LoweredStep, series: list[Buffer], dependence: Dependence):
        self.graph, self._reads_gradient = step.graph, dependence.of
        self.fresh: list[Buffer] = []
        self.kept: set[int] = set()
        self._there: dict[Node, Node] = {}
        self._replaced: dict[Node, Node] = {}
        self._wanted: dict[Node, frozenset[Node]] = {}
        self._costs: dict[Node, float] = {}
        for k, rows in enumerate(step.new):
            self._has(Buffer("new", k, rows.width), rows.pieces)
        for buffer in series:
            ends = [o for o, _ in buffer.stores[1:]] + [buffer.width]
            sizes = [e - o for (o, _), e in zip(buffer.stores, ends, strict=True)]
            nodes = [node for _, node in buffer.stores]
            self._has(buffer, tuple(zip(nodes, sizes, strict=True)))

    def _has(self, buffer: Buffer, pieces: tuple[tuple[Node, int], ...]) -> None:
        offset = 0
        for node, width in pieces:
            if node.op not in ("leaf", "constant") or (
                node.op == "leaf" and node.buffer.kind == "product"
            ):
                self._there.setdefault(node, self.graph.leaf(buffer, offset, width))
            offset += width

    def replace(self, node: Node) -> Node:
        """``node`` for the backward pass: forward values are loaded or computed again."""
        replaced = self._replaced
        for each in unknown(node, replaced, self._args_with_gradient):
            if not self._reads_gradient(each):
                replaced[each] = self._taken(each)
            elif each.args:
                replaced[each] = self.graph.rebuilt(each, [replaced[a] for a in each.args])
            else:
                replaced[each] = each
        return replaced[node]

    def _args_with_gradient(self, node: Node) -> Sequence[Node]:
        return node.args if self._reads_gradient(node) else ()

    def _taken(self, node: Node) -> Node:
        """A forward value that the backward pass wants: from memory, or computed again."""
        taken: dict[Node, Node] = {}
        for each in unknown(node, taken, self._args_to_take):
            taken[each] = self._taken_one(each, taken)
        return taken[node]

    def _args_to_take(self, node: Node) -> Sequence[Node]:
        return () if node in self._there or node in self._wants(node) else node.args

    def _taken_one(self, node: Node, taken: Mapping[Node, Node]) -> Node:
        if node in self._there:
            return self._there[node]
        if node in self._wants(node):
            made = Buffer("saved", len(self.fresh), node.width, series=True)
            made.stores.append((0, node))
            self.fresh.append(made)
            self._there[node] = self.graph.leaf(made)
            return self._there[node]
        if node.op == "leaf" and node.buffer.kind == "sequence":
            self.kept.add(node.buffer.index)
        if not node.args:
            return node
        return self.graph.rebuilt(node, [taken[a] for a in node.args])

    def _cost(self, node: Node) -> float:
        """How many expensive functions it takes to compute it from what is there."""
        costs = self._costs
        for each in unknown(node, costs, self._args_that_cost):
            if each in self._there or each.op == "constant":
                cost = 0.0
            elif each.op == "leaf":
                cost = 0.0 if each.buffer.kind in ("state", "vector") else float("inf")
            elif is_reduction(each):
                cost = float("inf")
            else:
                cost = sum(costs[a] for a in each.args) + each.cost
            costs[each] = cost
        return costs[node]

    def _args_that_cost(self, node: Node) -> Sequence[Node]:
        return () if node in self._there or is_reduction(node) else node.args

    def _wants(self, node: Node) -> frozenset[Node]:
        """What has to be saved so that ``node`` can be had."""
        for each in unknown(node, self._wanted, lambda n: n.args):
            args = frozenset().union(*(self._wanted[a] for a in each.args))
            if self._cost(each) <= 1 or (each.op == "leaf" and each.buffer.kind == "sequence"):
                wanted: frozenset[Node] = frozenset()
            elif (
                each.is_mask
                or (each.width == 1 and not is_reduction(each) and each.args)
                or (each.is_cheap and len(args) <= 1 and not _is_sum_with_sequence(each, args))
            ):
                wanted = args
            else:
                wanted = frozenset({each})
            self._wanted[each] = wanted
        return self._wanted[node]


def _is_sum_with_sequence(node: Node, args: frozenset[Node]) -> bool:
    """Saving W x + U h takes no more memory than U h, and lets go of W x."""
    return any(a.op == "leaf" and a.buffer.kind == "sequence" for a in node.args) and len(args) > 0


def _is_product(node: Node) -> bool:
    return node.op == "leaf" and node.buffer.kind == "product"


class Dependence:
    """Which values depend on the gradient of the states; each is found out once."""

    def __init__(self) -> None:
        self._known: dict[Node, bool] = {}

    def of(self, node: Node) -> bool:
        """Whether a node does."""
        for each in unknown(node, self._known, self._sources):
            self._known[each] = (
                each.op == "leaf" and _origin(each.buffer).kind == "cotangent"
            ) or any(self._known[source] for source in self._sources(each))
        return self._known[node]

    def of_buffer(self, buffer: Buffer) -> bool:
        """Whether what is written to a buffer does."""
        origin = _origin(buffer)
        return origin.kind == "cotangent" or any(self.of(node) for _, node in origin.stores)

    def _sources(self, node: Node) -> Sequence[Node]:
        if _is_product(node):
            return [source for _, source in _origin(node.buffer).stores]
        return node.args


def _origin(buffer: Buffer) -> Buffer:
    """What a product, or a product of products, is made of in the end."""
    while buffer.product is not None:
        buffer = buffer.product.source
    return buffer


def _targets(buffer: Buffer, rows: Value) -> list[Target]:
    targets, offset = [], 0
    for node, width in rows.pieces:
        targets.append(Target(buffer, offset, node, width))
        offset += width
    return targets


def _series(lowering: Lowering, rows: Value) -> Buffer:
    """Rows for each step; a gradient that is a forward value, too, gets a buffer of its own."""
    return lowering.materialised(rows, series=True)


def _sum(rows: Value, k: int, targets: list[Target]) -> Buffer:
    made = Buffer("sum", k, rows.width)
    offset = 0
    for node, width in rows.pieces:
        if not (node.op == "constant" and node.attribute == 0):
            targets.append(Target(made, offset, node, width, accumulate=True))
        offset += width
    return made


def _pair(lowering: Lowering, a: Value, b: Value) -> Pair:
    left, right = lowering.materialised(a, series=True), lowering.materialised(b, series=True)
    if left.kind == "state":
        return Pair(None, right, left.index)
    if right.kind == "state":
        return Pair(left, None, right.index)
    return Pair(left, right)
