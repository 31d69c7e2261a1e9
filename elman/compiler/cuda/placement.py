"""Which block of a group computes what, and where the blocks have to meet.

The blocks of a group have the same rows. Of every width each block has a run of units, so that a
unit's values stay with one thread: what it has written itself it reads without asking anybody.
Blocks meet before one reads what another may have written since the last meeting: the source of a
product, a reduction over the units, units of another width or at another offset.

No block runs more than one meeting ahead of another, and what is written anew at every step lies
twice, for even and for odd steps: nobody overwrites what another still reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from elman.compiler.ir import Buffer, Node
from elman.compiler.schedule import Function, Program

Units = tuple[int, int]
"""How units are divided: the width that is divided, and the offset of its first unit."""


@dataclass(frozen=True)
class Division:
    """How a batch and the units of a step are divided among blocks and warps.

    Attributes:
        rows: of the batch, that a group of blocks has: a multiple of 16.
        parts: the blocks of a group.
        sharing: how blocks hand each other what products read: in the shared memory of a
            ``cluster``, or by ``meeting``, through memory that all see.
        threads: of a block.
    """

    rows: int
    parts: int
    sharing: str = "meeting"
    threads: int = 256

    def units(self, width: int) -> int:
        """How many units of a width a block has at most."""
        return -(-width // self.parts)

    def elements(self, width: int) -> int:
        """How many of a block's rows and units a thread has at most."""
        return -(-self.rows * self.units(width) // self.threads)

    def warps(self, columns: int) -> tuple[int, int, int]:
        """Among how many warps a product divides its rows, its columns and its depth."""
        warps, high, wide = self.threads // 32, self.rows // 16, -(-columns // 8)
        down = min(high, warps)
        across = 1
        # What a warp adds up, it has in registers.
        while -(-high // down) * -(-wide // across) > 16 and down * across < warps:
            across *= 2
        return down, across, warps // (down * across)


@dataclass(eq=False)
class Multiplied:
    """A product as the blocks divide it.

    Attributes:
        units: how its readers divide its columns, each of these offsets alike.
        offsets: the first columns of what they read.
        kept: its readers are in the block that computes it, so that it goes through no memory.
    """

    buffer: Buffer
    units: int
    offsets: list[int]
    kept: bool

    def columns(self, division: Division) -> int:
        """How many columns a block computes at most."""
        return len(self.offsets) * division.units(self.units)


@dataclass(eq=False)
class Stage:
    """One stage of a step.

    Attributes:
        meets: the blocks meet before it.
        products: what is multiplied.
        copies: products that are written to memory as they are.
        functions: with the numbers that they have in their program.
    """

    products: list[Multiplied]
    copies: list[Multiplied]
    functions: list[tuple[int, Function]]
    meets: bool = False

    @property
    def reductions(self) -> list[tuple[Function, int, Node]]:
        """The functions' reductions, after which the blocks meet."""
        return [(f, slot, node) for _, f in self.functions for slot, node in f.reductions]


@dataclass(eq=False)
class Placement:
    """A program as blocks run it.

    Attributes:
        stages: of a step.
        sources: what products read, each through memory that all blocks of a group see.
        filled: those of the sources that no function of the step writes: they are copied first.
        states: the buffers of the values before the step of states that the step changes.
        kept: of what is read, how it is divided where a thread reads what it has written itself,
            and may keep it; of states, where it writes what it will read in the next step.
        read: of what is read, how it is divided otherwise: it lies in memory.
        reduced: what reductions fill, a buffer and an offset, with the number of each.
    """

    program: Program
    backward: bool
    stages: list[Stage] = field(default_factory=list)
    sources: list[Buffer] = field(default_factory=list)
    filled: list[Buffer] = field(default_factory=list)
    states: list[Buffer] = field(default_factory=list)
    kept: dict[Buffer, set[Units]] = field(default_factory=dict)
    read: dict[Buffer, set[Units]] = field(default_factory=dict)
    reduced: dict[tuple[Buffer, int], int] = field(default_factory=dict)

    @property
    def meets(self) -> bool:
        """Whether the blocks of a group ever meet."""
        return bool(self.filled) or any(s.meets or s.reductions for s in self.stages)

    def written(self, source: Buffer) -> list[Units]:
        """How the units of a source of products are divided where they are written."""
        if source in self.filled:
            return [(source.width, 0)]
        if source in self.kept and self.carried(source):
            return sorted(self.kept[source], key=lambda units: units[1])
        return sorted(_all_writes(self)[source], key=lambda units: units[1])

    def clusters(self, division: Division, depth: int) -> bool:
        """Whether blocks can keep their own tiles, of this depth, of what products read.

        That is so where a source consists of parts of one width that are divided alike, into whole
        tiles.
        """
        for source in self.sources:
            (width, _), *_ = every = self.written(source)
            own = division.units(width)
            tiled = [(width, width * k) for k in range(source.width // width)] == every
            if not tiled or source.width % width or width % own or own % depth:
                return False
        return True

    def carried(self, buffer: Buffer) -> bool:
        """Whether a buffer is the value before the step of a state that the step changes."""
        return buffer.kind == ("cotangent" if self.backward else "state")


def place(program: Program, states: Sequence[int], backward: bool) -> Placement:
    """Divide among blocks the work of a program with states of these widths."""
    placed = Placement(program, backward)
    there = {b.index: b for b in program.buffers if placed.carried(b)}
    kind = "cotangent" if backward else "state"
    placed.states = [there.get(k) or Buffer(kind, k, width) for k, width in enumerate(states)]
    products = {p: _multiplied(program, p) for p in program.products}
    number = 0
    for filled, applied in program.stages:
        functions = []
        for function in applied:
            functions.append((number, function))
            number += 1
        mine = [products[p] for p in filled]
        copies = [m for m in mine if not m.kept]
        if copies and functions:  # others may read what is written
            placed.stages.append(Stage(mine, copies, []))
            mine, copies = [], []
        placed.stages.append(Stage(mine, copies, functions))
    for product in program.products:
        assert product.product is not None
        source = program.resolve(product.product.source)
        if source not in placed.sources:
            placed.sources.append(source)
    for stage in placed.stages:
        for function, slot, _ in stage.reductions:
            buffer, offset = function.slots[slot]
            placed.reduced[program.resolve(buffer), offset] = len(placed.reduced)
    written = {program.resolve(b) for b in _written(program)}
    # What is carried is written for the next step when this one ends.
    placed.filled = [s for s in placed.sources if s not in written and not placed.carried(s)]
    reads, writes = _all_reads(placed), _all_writes(placed)
    after = {b.index: units for b, units in writes.items() if b.kind == "after"}
    for buffer in placed.states:
        # Whoever writes the state after the step has it before the next one.
        placed.kept[buffer] = after.get(buffer.index, set())
        placed.read[buffer] = reads.get(buffer, set()) - placed.kept[buffer]
    for buffer, units in reads.items():
        if buffer not in placed.kept:
            added = buffer.kind == "sum" or buffer not in writes
            placed.kept[buffer] = set() if added else units & writes[buffer]
            placed.read[buffer] = units - placed.kept[buffer]
    _find_meetings(placed)
    return placed


def _multiplied(program: Program, product: Buffer) -> Multiplied:
    reads = [
        (function, *function.slots[slot], node.width)
        for function in program.functions
        for node, slot in function.loads.items()
        if function.slots[slot][0] is product
    ]
    widths = {(function.width, width) for function, _, _, width in reads}
    sources = [p.product.source for p in program.products if p.product is not None]
    is_source = any(program.resolve(source) is product for source in sources)
    if len(widths) == 1 and not is_source and product not in program.alias:
        ((function_width, width),) = widths
        if width == function_width:
            return Multiplied(product, width, sorted({o for _, _, o, _ in reads}), True)
    return Multiplied(product, product.width, [0], False)


def _written(program: Program) -> Iterator[Buffer]:
    for function in program.functions:
        yield from (function.slots[slot][0] for slot, _, _ in function.stores)
        yield from (function.slots[slot][0] for slot, _ in function.reductions)
    yield from program.products


def divided(function: Function, node: Node, offset: int) -> Units:
    """How the units of what a function reads are divided; 0: all blocks read the same one."""
    alike = node.width == 1 and node.width < function.width
    return (0 if alike else function.width), offset


def _reads(placed: Placement, function: Function) -> Iterator[tuple[Buffer, Units]]:
    """What a function reads."""
    for node, slot in function.loads.items():
        buffer, offset = function.slots[slot]
        buffer = placed.program.resolve(buffer)
        yield buffer, divided(function, node, offset)


def _writes(placed: Placement, function: Function) -> Iterator[tuple[Buffer, Units]]:
    for slot, _, _ in function.stores:
        buffer, offset = function.slots[slot]
        yield placed.program.resolve(buffer), (function.width, offset)
    for slot, _ in function.reductions:
        buffer, offset = function.slots[slot]
        yield placed.program.resolve(buffer), (1, offset)


def _all_reads(placed: Placement) -> dict[Buffer, set[Units]]:
    found: dict[Buffer, set[Units]] = {}
    kept = {m.buffer for stage in placed.stages for m in stage.products if m.kept}
    for _, function in (f for stage in placed.stages for f in stage.functions):
        for buffer, units in _reads(placed, function):
            reduced = units[0] <= 1 and (buffer, units[1]) in placed.reduced
            if buffer not in kept and not reduced:
                found.setdefault(buffer, set()).add(units)
    return found


def _all_writes(placed: Placement) -> dict[Buffer, set[Units]]:
    found: dict[Buffer, set[Units]] = {}
    for stage in placed.stages:
        for product in stage.copies:
            target = placed.program.resolve(product.buffer)
            found.setdefault(target, set()).add((target.width, 0))
        for _, function in stage.functions:
            for buffer, units in _writes(placed, function):
                found.setdefault(buffer, set()).add(units)
    return found


def _find_meetings(placed: Placement) -> None:
    """Where blocks meet: twice round, for what a step reads that the one before it wrote."""
    dirty: dict[Buffer, set[Units]] = {}
    everyone: Units = (-1, 0)
    kept = {m.buffer for stage in placed.stages for m in stage.products if m.kept}

    def seen(buffer: Buffer, units: Units) -> bool:
        """Whether what is read is what the block itself wrote, or older than the last meeting."""
        return dirty.get(buffer, set()) <= {units}

    for _ in range(2):
        for source in placed.filled:
            dirty[source] = {(source.width, 0)}
        for state in placed.states:
            dirty.setdefault(state, set()).update(placed.kept[state])
        for stage in placed.stages:
            for product in stage.products:
                assert product.buffer.product is not None
                source = placed.program.resolve(product.buffer.product.source)
                stage.meets |= not seen(source, everyone)
            for _, function in stage.functions:
                for buffer, units in _reads(placed, function):
                    reduced = units[0] <= 1 and (buffer, units[1]) in placed.reduced
                    if buffer not in kept and not reduced:
                        stage.meets |= not seen(buffer, units)
            if stage.meets:
                dirty.clear()
            for product in stage.copies:
                target = placed.program.resolve(product.buffer)
                dirty.setdefault(target, set()).add((target.width, 0))
            for _, function in stage.functions:
                for buffer, units in _writes(placed, function):
                    dirty.setdefault(buffer, set()).add(units)
            if stage.reductions:
                dirty.clear()
