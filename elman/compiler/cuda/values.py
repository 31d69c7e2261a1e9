"""Where a kernel's values are: in registers, in memory of a block, of a group, of everybody.

Each value of a step is read where it was written: by the same thread, in a register; by others of
the block or the group, in memory that they share; or in a tensor that the kernel was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from elman.compiler.cuda.placement import Division, Multiplied, Placement, Units, divided
from elman.compiler.ir import Buffer, Node
from elman.compiler.schedule import Function

OPERANDS = {
    "float32": ("Float", 1, 4),
    "float64": ("Double", 1, 8),
    "tf32": ("Tf32", 8, 4),
    "bf16": ("Bf16", 16, 2),
    "fp16": ("Fp16", 16, 2),
}
"""What products multiply: its name in C++, the depth of a tile of it, the bytes of a number."""

AHEAD = 2
"""Elements of a thread up to which it loads what a step reads before the step needs it."""


@dataclass
class Values:
    """A kernel's values, in the code of a thread for its rows and units.

    Attributes:
        name: the program's.
        placed: who does what.
        division: how the work is divided.
        operand: what products multiply.
        arguments: what the kernel is given, by name, with its number.
        exchanges: where in shared memory the sources of products lie, if blocks are a cluster.
        late: the stores that wait until the others are told, each with the width of its units.
    """

    name: str
    placed: Placement
    division: Division
    operand: str
    arguments: dict[str, int] = field(default_factory=dict)
    exchanges: dict[Buffer, int] = field(default_factory=dict)
    late: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.products = [m for stage in self.placed.stages for m in stage.products]
        self.numbers = {m: k for k, m in enumerate(self.products)}
        self.state_of = {b.index: b for b in self.placed.states}
        self._by_buffer = {m.buffer: m for m in self.products}
        self._waiting: list[tuple[int, str]] = []

    # -- what the kernel is given ------------------------------------------------------------------

    def arg(self, name: str) -> str:
        """A number that the kernel is given."""
        return f"given.of[{self.arguments.setdefault(name, len(self.arguments))}]"

    def pointer(self, name: str, kind: str = "real") -> str:
        """An address that it is given."""
        return f"reinterpret_cast<{kind}*>({self.arg(name)})"

    def resolved(self, buffer: Buffer) -> Buffer:
        """Where a buffer really lies."""
        return self.placed.program.resolve(buffer)

    def depth(self, product: Multiplied) -> int:
        """Over how many units a product sums."""
        assert product.buffer.product is not None
        return product.buffer.product.source.width

    def columns(self, product: Multiplied) -> int:
        """How many columns of a product a block computes."""
        return product.columns(self.division)

    # -- a step ------------------------------------------------------------------------------------

    def stage_of(self, n: int) -> int:
        """The number of the stage that the n-th function belongs to."""
        return next(
            k for k, s in enumerate(self.placed.stages) if any(m == n for m, _ in s.functions)
        )

    @cached_property
    def meets_first(self) -> int:
        """The stage before or after which blocks first meet in a step; none: past the last."""
        for k, stage in enumerate(self.placed.stages):
            if stage.meets:
                return k
            if stage.reductions:
                return k + 1
        return len(self.placed.stages)

    def each(self, width: int) -> Iterator[str]:
        """The beginning of a loop over a thread's rows and units of a width."""
        units = self.division.units(width)
        yield "#pragma unroll"
        yield f"  for (int e = 0; e < {self.division.elements(width)}; ++e) {{"
        yield "    const int place = threadIdx.x + e * THREADS;"
        yield f"    const int row = place / {units}, own = place % {units};"
        yield f"    const int unit = part * {units} + own; const long b = first_row + row;"
        yield f"    const bool owned = place < ROWS * {units} && unit < {width};"
        yield "    const bool inside = owned && row < rows;"
        yield "    (void)b; (void)unit; (void)inside;"

    def inside(self, body: Iterator[str]) -> Iterator[str]:
        """Code for a thread's rows and units."""
        yield "    if (inside) {"
        yield from body
        yield "    }"

    # -- memory ------------------------------------------------------------------------------------

    def exchange(self, source: Buffer, step: str) -> str:
        """Where a source of products of a step lies for all blocks of the group."""
        parity = f"{step} & 1"
        _, deep, _ = OPERANDS[self.operand]
        if self.division.sharing == "cluster":
            size = self.own_depth(source) * self.division.rows
            at = f"shared + {self.exchanges[source]}"
            return f"(reinterpret_cast<Storage*>({at}) + (({parity}) * {size}))"
        size = -(-source.width // deep) * deep
        base = self.pointer(f"exchange {source.name}", "Storage")
        return f"({base} + ((({parity}) * groups + group) * {size}L) * ROWS)"

    def own_depth(self, source: Buffer) -> int:
        """How many units of a source a block writes."""
        every = self.placed.written(source)
        return len(every) * self.division.units(every[0][0])

    def _space(self, buffer: Buffer, parity: str = "(step & 1)") -> str:
        """Where what is no tensor lies, in rows."""
        return f"({self.pointer(f'space {buffer.name}')} + {parity} * batch * {buffer.width}L)"

    def kept(self, buffer: Buffer, units: Units) -> str:
        """A thread's own values."""
        return f"kept_{buffer.name}_{units[0]}_{units[1]}"

    def is_series(self, buffer: Buffer) -> bool:
        """Whether a buffer has a row for each step: only what a gradient needs is kept."""
        return buffer.series and self.name != "forward"

    def _is_private(self, buffer: Buffer) -> bool:
        return not self.is_series(buffer) and buffer.kind in (
            "product",
            "temporary",
            "local",
            "saved",
        )

    def _is_static(self, buffer: Buffer) -> bool:
        """Whether nobody writes a buffer while the kernel runs."""
        carried = buffer in self.placed.states
        own = buffer.kind in ("product", "temporary", "after", "sum")
        return not carried and not own and buffer not in self._written

    @cached_property
    def _written(self) -> set[Buffer]:
        functions = self.placed.program.functions
        stores = {self.resolved(f.slots[s][0]) for f in functions for s, _, _ in f.stores}
        stores |= {self.resolved(f.slots[s][0]) for f in functions for s, _ in f.reductions}
        return stores | {self.resolved(p) for p in self.placed.program.products}

    def ahead(self) -> Iterator[tuple[int, Function, Node]]:
        """What is loaded before the step needs it."""
        for n, function in enumerate(self.placed.program.functions):
            if self.division.elements(function.width) > AHEAD or not self.placed.meets:
                continue
            for node, slot in function.loads.items():
                buffer, _ = function.slots[slot]
                if self._is_static(self.resolved(buffer)):
                    yield n, function, node

    def tensor(self, buffer: Buffer, unit: str, t: str = "t") -> str:
        """What lies in memory that the kernel was given, at row b of step t."""
        if self.placed.backward and buffer.kind == "state":
            return self._past(buffer, unit, t)
        at = self._row(buffer, t) + f" + {unit}"
        base = self.pointer(f"data {buffer.name}")
        if self._is_static(buffer):
            return f"{base}[{at}]"
        return f"load_fresh({base} + ({at}))"

    def _row(self, buffer: Buffer, t: str) -> str:
        step, row = (self.arg(f"{what} {buffer.name}") for what in ("step", "row"))
        return f"{t} * {step} + b * {row}"

    def _past(self, buffer: Buffer, unit: str, t: str) -> str:
        """A state of the forward pass before the step, which came the other way."""
        k, width = f"past {buffer.index}", buffer.width
        at, earlier = f"b * {width} + {unit}", f"({t} + (reverse ? -1 : 1))"
        return (
            f"(again({t}, b) && {self.arg(f'again {k}')} ? {self.pointer(f'again {k}')}[{at}] "
            f": {earlier} < 0 || {earlier} >= steps ? {self.pointer(f'first {k}')}[{at}] "
            f": {self.pointer(f'history {k}')}[{earlier} * batch * {width} + {at}])"
        )

    def _history(self, after: Buffer) -> str:
        slots = self.arg(f"slots {after.index}")
        base = self.pointer(f"history {after.index}")
        return f"({base} + ({slots} == steps ? t : t & 1) * batch * {after.width}L)"

    # -- reading -----------------------------------------------------------------------------------

    def value(self, n: int, function: Function, node: Node) -> str:
        """What a function reads, at a thread's e-th element."""
        buffer, offset = function.slots[function.loads[node]]
        units = divided(function, node, offset)
        product = self._by_buffer.get(buffer)
        if product is not None and product.kept:
            k, own = self.numbers[product], self.division.units(product.units)
            return f"P{k}::sum(sums{k}, row, {product.offsets.index(offset) * own} + own)"
        buffer = self.resolved(buffer)
        if units[0] <= 1 and (buffer, offset) in self.placed.reduced:
            return f"reduced[{self.placed.reduced[buffer, offset]} * ROWS + row]"
        if units in self.placed.kept.get(buffer, set()):
            return f"{self.kept(buffer, units)}[e]"
        if any((m, other) == (n, node) for m, _, other in self.ahead()):
            return f"now_{n}_{node.name}[e]"
        unit = f"{offset} + unit" if units[0] else f"{offset}"
        return self._memory(buffer, unit)

    def _memory(self, buffer: Buffer, unit: str) -> str:
        if buffer in self.placed.states:
            return f"load_fresh({self._space(buffer)} + b * {buffer.width} + {unit})"
        if buffer.kind == "after":
            return f"load_fresh({self._history(buffer)} + b * {buffer.width} + {unit})"
        if self._is_private(buffer):
            return f"load_fresh({self._space(buffer)} + b * {buffer.width} + {unit})"
        return self.tensor(buffer, unit)

    # -- writing -----------------------------------------------------------------------------------

    def exchanged(self, source: Buffer, units: Units, value: str, step: str) -> Iterator[str]:
        """Write a value, if products of that step read it, to where they do."""
        if source in self.placed.sources:
            unit = f"{units[1]} + unit"
            if self.division.sharing == "cluster":
                own = self.division.units(units[0])
                unit = f"{self.placed.written(source).index(units) * own} + own"
            where = self.exchange(source, step)
            yield f"      {where}[exchanged(row, {unit})] = OPERAND::round({value});"

    def present(self, state: Buffer, units: Units, step: str) -> Iterator[str]:
        """Writes ``value``, a state before a step, to where others read it."""
        if self.placed.read[state]:
            space = self._space(state, f"({step} & 1)")
            yield f"      {space}[b * {state.width} + {units[1]} + unit] = value;"
        yield from self.exchanged(state, units, "value", step)

    def first(self, k: int) -> Iterator[str]:
        """``value``, a state before the first step."""
        yield f"      real value = {self.pointer(f'first {k}')}[at];"
        yield from self._turned(k)

    def _turned(self, k: int) -> Iterator[str]:
        """``value`` after a step becomes what the next sees: a reset, or a gradient more."""
        if self.placed.backward:
            more = f"{self.pointer(f'added {k}')}[t_next * batch * {self.state_of[k].width} + at]"
            yield f"      if ({self.arg(f'added {k}')}) value += {more};"
        else:
            start = f"{self.pointer(f'again {k}')}[at]"
            yield f"      if (again(t_next, b) && {self.arg(f'again {k}')}) value = {start};"

    def store(
        self, buffer: Buffer, units: Units, value: str, accumulate: bool, row_alive: str
    ) -> Iterator[str]:
        """Write a value of the e-th element to where it is wanted, in code for rows of all kinds.

        ``row_alive`` says whether the row has not ended.
        """
        width, unit = buffer.width, f"{units[1]} + unit"
        if buffer.kind == "after":
            yield from self._turn(buffer, units, value)
            return
        if buffer.kind == "sum":
            at = f"{self.pointer(f'data {buffer.name}')}[b * {width} + {unit}]"
            yield f"      if ({row_alive}) {at} {'+=' if accumulate else '='} {value};"
            return
        assert not accumulate
        if units in self.placed.kept.get(buffer, set()):
            yield f"      {self.kept(buffer, units)}[e] = {value};"
        if self.is_series(buffer):
            at = self._row(buffer, "t") + f" + {unit}"
            place = f"{self.pointer(f'data {buffer.name}')}[{at}]"
            seen = bool(self.placed.read.get(buffer))
            yield from self._later(place, f"({row_alive} ? {value} : real(0))", units[0], seen)
        elif self.placed.read.get(buffer):
            yield f"      {self._space(buffer)}[b * {width} + {unit}] = {value};"
        yield from self.exchanged(buffer, units, f"({row_alive} ? {value} : real(0))", "step")

    def _turn(self, after: Buffer, units: Units, value: str) -> Iterator[str]:
        """From a state after this step to the one before the next."""
        k, width = after.index, after.width
        state = self.state_of[k]
        kept = self.kept(state, units)
        yield "      {"
        yield f"      const long at = b * {width} + {units[1]} + unit;"
        yield f"      real value = gone ? {kept}[e] : {value};"
        if units in self.placed.kept.get(after, set()):
            yield f"      {self.kept(after, units)}[e] = value;"
        if not self.placed.backward or self.placed.read.get(after):
            place = f"{self._history(after)}[b * {width} + {units[1]} + unit]"
            yield from self._later(place, "value", units[0], bool(self.placed.read.get(after)))
        if self.placed.backward:
            yield "      if (again(t, b)) {"
            taken = f"{self.pointer(f'again_out {k}')}[at] += value;"
            yield f"        if ({self.arg(f'again_out {k}')}) {taken}"
            yield "        value = 0;"
            yield "      }"
        yield "      if (is_last) {"
        yield f"        if ({self.arg(f'last {k}')}) {self.pointer(f'last {k}')}[at] = value;"
        yield "      } else {"
        yield from self._turned(k)
        yield f"      next_{kept}[e] = value;"
        yield from self.present(state, units, "(step + 1)")
        yield "      }"
        yield "      }"

    def _later(self, place: str, value: str, width: int, seen: bool) -> Iterator[str]:
        """A store that may wait until others are told of what they wait for, if none reads it."""
        elements = self.division.elements(width)
        if seen or elements > AHEAD or not self.placed.meets:
            yield f"      {place} = {value};"
            return
        name = f"late{len(self.late)}"
        self.late.append((width, f"{place} = {name}[e];"))
        self._waiting.append(self.late[-1])
        yield f"      {name}[e] = {value};"

    def arrive(self) -> Iterator[str]:
        """Tell the others that all is written that they read, then write what they do not."""
        yield "  meeting.arrive();"
        yield from self.flush()

    def flush(self) -> Iterator[str]:
        """The stores that have waited."""
        for width in dict.fromkeys(width for width, _ in self._waiting):
            yield from self.each(width)
            yield "    if (inside) {"
            yield from (f"      {store}" for w, store in self._waiting if w == width)
            yield "    }"
            yield "  }"
        self._waiting = []
