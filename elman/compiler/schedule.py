"""In which order a step is computed: stages of products and pointwise functions.

A stage begins with its products, which read rows that earlier stages have written. Then come its
functions, one for each width, which run over the units of a row. A value whose input is a product
belongs to that product's stage; a value that uses a reduction of a row belongs to the stage after
it. What a later stage needs of an earlier one goes through memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from elman.compiler.ir import Buffer, Graph, Node, is_reduction, walk


@dataclass(frozen=True)
class Target:
    """A node that a program has to write: where, and whether it is added to what is there."""

    buffer: Buffer
    offset: int
    node: Node
    width: int
    accumulate: bool = False

    def __post_init__(self) -> None:
        if self.offset < 0 or self.width < 1 or self.offset + self.width > self.buffer.width:
            raise AssertionError(f"{self} lies outside its buffer")


@dataclass
class Function:
    """A pointwise function over ``width`` units of a row.

    Attributes:
        slots: (buffer, offset) of each pointer that it takes.
        loads: the slot that each leaf, or each value of an earlier stage, is read from.
        nodes: what is computed, each after its arguments.
        stores: (slot, node, accumulate).
        reductions: (slot, node).
    """

    stage: int
    width: int
    slots: list[tuple[Buffer, int]] = field(default_factory=list)
    loads: dict[Node, int] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    stores: list[tuple[int, Node, bool]] = field(default_factory=list)
    reductions: list[tuple[int, Node]] = field(default_factory=list)

    def slot(self, buffer: Buffer, offset: int) -> int:
        """The number of the pointer to ``buffer`` at ``offset``."""
        if (buffer, offset) not in self.slots:
            self.slots.append((buffer, offset))
        return self.slots.index((buffer, offset))


@dataclass
class Program:
    """What runs at every step.

    Attributes:
        stages: the products (the buffers they fill) and functions of each stage.
        alias: products that are written straight to where they are wanted.
    """

    stages: list[tuple[list[Buffer], list[Function]]]
    alias: dict[Buffer, Buffer]

    def resolve(self, buffer: Buffer) -> Buffer:
        """Where ``buffer`` really lies."""
        return self.alias.get(buffer, buffer)

    @property
    def functions(self) -> list[Function]:
        """All functions, in the order in which they run."""
        return [f for _, functions in self.stages for f in functions]

    @property
    def products(self) -> list[Buffer]:
        """All products, in the order in which they run."""
        return [p for products, _ in self.stages for p in products]

    @property
    def buffers(self) -> list[Buffer]:
        """Every buffer that is read or written."""
        found: dict[Buffer, None] = {}
        for products, functions in self.stages:
            for product in products:
                assert product.product is not None
                found[self.resolve(product.product.source)] = None
                found[self.resolve(product)] = None
            for function in functions:
                found.update((self.resolve(b), None) for b, _ in function.slots)
        return list(found)


class Scheduler:
    """Makes a :class:`Program` that writes the given targets."""

    def __init__(
        self, graph: Graph, targets: Sequence[Target], replace: Callable[[Node], Node]
    ) -> None:
        self.graph, self.replace = graph, replace
        self.targets = [
            Target(t.buffer, t.offset, replace(t.node), t.width, t.accumulate) for t in targets
        ]
        self.alias: dict[Buffer, Buffer] = {}
        self.products: list[Buffer] = []
        self.home: dict[Node, tuple[Buffer, int]] = {}
        self._stages: dict[Node, int] = {}
        self._product_stages: dict[Buffer, int] = {}
        self._sources: dict[Buffer, list[Target]] = {}
        self._functions: dict[tuple[int, int], Function] = {}
        self._locals = 0

    def program(self) -> Program:
        """The targets in stages, between the products that they need."""
        self._find_products()
        self._write_in_place()
        for target in self.targets:
            if not target.accumulate and target.node.op not in ("leaf", "constant"):
                self.home.setdefault(target.node, (target.buffer, target.offset))
        for target in self.targets:
            self._function(self._ready(target.node), target.width)
        self._give_reductions_a_home()
        last = max([s for s, _ in self._functions] + list(self._product_stages.values()), default=0)
        for stage in range(last, -1, -1):
            for width in sorted({w for s, w in self._functions if s == stage}):
                self._fill(self._functions[stage, width])
        stages = []
        for stage in range(last + 1):
            products = [p for p in self.products if self._product_stages[p] == stage]
            functions = [f for (s, _), f in sorted(self._functions.items()) if s == stage]
            stages.append((products, [f for f in functions if f.slots]))
        return Program([s for s in stages if s[0] or s[1]], self.alias)

    # -- what there is to do ---------------------------------------------------------------------

    def _find_products(self) -> None:
        """Every product that a target needs; what its source holds becomes a target too."""
        done = 0
        while done < len(self.targets):
            for node in walk([self.targets[done].node]):
                if node.op == "leaf" and node.buffer.kind == "product":
                    self._add_product(node.buffer)
            done += 1
        for product in self.products:
            self._product_stage(product)

    def _add_product(self, product: Buffer) -> None:
        if product in self.products:
            return
        self.products.append(product)
        assert product.product is not None
        source = product.product.source
        if source.kind == "product":
            self._add_product(source)
        if source.kind == "local" and source not in self._sources:
            self._sources[source] = stores_of(source, self.replace)
            known = {(t.buffer, t.offset) for t in self.targets}
            self.targets += [t for t in self._sources[source] if (t.buffer, t.offset) not in known]

    def _write_in_place(self) -> None:
        """A product that is itself what a target wants is written there."""
        for target in list(self.targets):
            node, buffer = target.node, target.buffer
            if (
                node.op == "leaf"
                and node.buffer.kind == "product"
                and node.buffer not in self.alias
                and buffer.kind == "after"
                and node.width == node.buffer.width == buffer.width
            ):
                self.alias[node.buffer] = buffer
                self.targets.remove(target)

    def _give_reductions_a_home(self) -> None:
        for node in walk([t.node for t in self.targets]):
            if is_reduction(node):
                if node not in self.home:
                    self.home[node] = (self._local(1), 0)
                self._function(self._stage(node.args[0]), node.args[0].width)

    # -- stages ----------------------------------------------------------------------------------

    def _product_stage(self, product: Buffer) -> int:
        if product not in self._product_stages:
            assert product.product is not None
            source = product.product.source
            stage = 0
            if source.kind == "product":
                stage = self._product_stage(source) + 1
            elif source in self._sources:
                stage = 1 + max(self._ready(t.node) for t in self._sources[source])
            self._product_stages[product] = stage
        return self._product_stages[product]

    def _stage(self, node: Node) -> int:
        """The stage that computes a node."""
        if node not in self._stages:
            for each in walk([node]):
                if each.op == "leaf" and each.buffer.kind == "product":
                    self._stages[each] = self._product_stage(each.buffer)
                elif is_reduction(each):
                    self._stages[each] = self._stages[each.args[0]]
                else:
                    self._stages[each] = max(map(self._ready, each.args), default=0)
        return self._stages[node]

    def _ready(self, node: Node) -> int:
        """The first stage that can use a node."""
        return self._stage(node) + is_reduction(node)

    # -- functions -------------------------------------------------------------------------------

    def _function(self, stage: int, width: int) -> Function:
        return self._functions.setdefault((stage, width), Function(stage, width))

    def _fill(self, function: Function) -> None:
        stage, width = function.stage, function.width
        stores = [
            t
            for t in self.targets
            if t.width == width
            and self._ready(t.node) == stage
            and not (is_reduction(t.node) and self.home[t.node] == (t.buffer, t.offset))
        ]
        reductions = [
            n
            for n in self.home
            if is_reduction(n) and self._stage(n) == stage and n.args[0].width == width
        ]
        done: set[Node] = set()
        for target in stores:
            self._compute(function, target.node, done)
        for node in reductions:
            self._compute(function, node.args[0], done)
        for target in stores:
            slot = function.slot(target.buffer, target.offset)
            function.stores.append((slot, target.node, target.accumulate))
        function.reductions = [(function.slot(*self.home[n]), n) for n in reductions]

    def _compute(self, function: Function, root: Node, done: set[Node]) -> None:
        """Add ``root`` and what it needs to ``function``, or load it where it exists already."""
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if node in done and not ready:
                continue
            if ready:
                function.nodes.append(node)
                continue
            done.add(node)
            if node.op == "leaf":
                function.loads[node] = function.slot(node.buffer, node.offset)
            elif self._is_earlier(function, node):
                function.loads[node] = function.slot(*self._stored(node))
            elif node.op != "constant":
                stack.append((node, True))
                stack.extend((a, False) for a in reversed(node.args))

    def _is_earlier(self, function: Function, node: Node) -> bool:
        if node.op == "constant" or self._ready(node) > function.stage:
            return False
        if is_reduction(node):
            return True
        if self._stage(node) == function.stage or (node.width == 1 and function.width > 1):
            return False
        return not node.is_mask and (node in self.home or not self._is_cheap(node))

    def _is_cheap(self, node: Node) -> bool:
        """Whether to compute it again from memory rather than to store and load it."""
        simple = all(a.op in ("leaf", "constant") for a in node.args)
        products = costly = 0
        for each in walk([node]):
            if is_reduction(each):
                return False
            products += each.op == "leaf" and each.buffer.kind == "product"
            costly += each.cost
            if not simple and (products or costly > 1):
                return False  # whatever else there is
        return costly <= 1 if not products else node.is_cheap and simple

    def _stored(self, node: Node) -> tuple[Buffer, int]:
        if node not in self.home:
            self.home[node] = (self._local(node.width), 0)
            stage = self._stage(node)
            self.targets.append(Target(*self.home[node], node, node.width))
            self._function(stage, node.width)
        return self.home[node]

    def _local(self, width: int) -> Buffer:
        self._locals += 1
        return Buffer("temporary", self._locals, width)


def stores_of(buffer: Buffer, replace: Callable[[Node], Node]) -> list[Target]:
    """The targets that fill a local buffer."""
    ends = [offset for offset, _ in buffer.stores[1:]] + [buffer.width]
    return [
        Target(buffer, offset, replace(node), end - offset)
        for (offset, node), end in zip(buffer.stores, ends, strict=True)
    ]


def schedule(
    graph: Graph, targets: Iterable[Target], replace: Callable[[Node], Node] = lambda node: node
) -> Program:
    """The program that writes ``targets``; ``replace`` is applied to every node first."""
    return Scheduler(graph, list(targets), replace).program()
