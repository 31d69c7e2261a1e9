"""From a program to one CUDA kernel that runs all steps.

What a function computes stands by itself (``statements.py``), how blocks multiply and meet in
``runtime/loop.cuh``, who does what in ``placement.py``. Here come the step's order, and where each
value is read and written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from elman.compiler.cuda.placement import Division, Multiplied, Placement, Stage, Units, divided
from elman.compiler.ir import Buffer, Node
from elman.compiler.schedule import Function
from elman.compiler.statements import call, definitions, number, parts

OPERANDS = {"float32": ("Float", 1, 4), "float64": ("Double", 1, 8), "tf32": ("Tf32", 8, 4),
            "bf16": ("Bf16", 16, 2), "fp16": ("Fp16", 16, 2)}  # fmt: skip
"""What products multiply: its name in C++, the depth of a tile of it, the bytes of a number."""

AHEAD = 2
"""Elements of a thread up to which it loads what a step reads before the step needs it."""

SHARED = 220 * 1024
"""Bytes of shared memory that a block may have."""

ALIGNED = 128


@dataclass
class Emitted:
    """A kernel's source, and how it is called.

    Attributes:
        source: CUDA C++.
        arguments: what it is given, by names that :class:`elman.compiler.cuda.kernels.Kernel` knows.
        shared: bytes of shared memory of a block.
        packed: by product, the bytes of a block's slice of the matrix where it is not in shared
            memory.
    """

    source: str
    arguments: list[str]
    shared: int
    packed: dict[int, int]


def emit(name: str, placed: Placement, division: Division, operand: str, real_size: int) -> Emitted:
    """The kernel of a program that is divided in this way."""
    return _Writer(name, placed, division, operand, real_size).write()


@dataclass
class _Writer:
    name: str
    placed: Placement
    division: Division
    operand: str
    real_size: int
    arguments: dict[str, int] = field(default_factory=dict)
    shared: int = 0
    packed: dict[int, int] = field(default_factory=dict)
    late: list[tuple[int, str]] = field(default_factory=list)
    exchanges: dict[Buffer, int] = field(default_factory=dict)

    def write(self) -> Emitted:
        self.products = [m for stage in self.placed.stages for m in stage.products]
        self.numbers = {m: k for k, m in enumerate(self.products)}
        self.by_buffer = {m.buffer: m for m in self.products}
        self.state_of = {b.index: b for b in self.placed.states}
        operand, _, _ = OPERANDS[self.operand]
        division = self.division
        lines = [
            f"#define ROWS {division.rows}",
            f"#define PARTS {division.parts}",
            f"#define THREADS {division.threads}",
            f"#define CLUSTER {int(division.sharing == 'cluster')}",
            f"#define TAGGED {int(division.sharing == 'tag')}",
            f"#define OPERAND {operand}",
            '#include "loop.cuh"',
            "namespace elman {",
        ]
        for k, function in enumerate(self.placed.program.functions):
            lines += definitions(f"{self.name}_{k}", function)
        body = "\n".join(self._kernel())
        for k, product in enumerate(self.products):
            source = self.resolved(product.buffer.product.source)  # type: ignore[union-attr]
            width = self.placed.written(source)[0][0]
            numbers = (
                self._depth(product), self._columns(product),
                *division.warps(self._columns(product)), width, division.units(width),
            )  # fmt: skip
            lines.append(f"using P{k} = Product<{', '.join(map(str, numbers))}>;")
        lines += [
            f"struct Arguments {{ long long of[{len(self.arguments)}]; }};",
            f'extern "C" __global__ void __launch_bounds__({division.threads}, 1) '
            f"{self.name}(const Arguments given) {{",
            body,
            "}",
            "}  // namespace elman",
        ]
        return Emitted("\n".join(lines) + "\n", list(self.arguments), self.shared, self.packed)

    # -- names -----------------------------------------------------------------------------------

    def arg(self, name: str) -> str:
        """A number that the kernel is given."""
        return f"given.of[{self.arguments.setdefault(name, len(self.arguments))}]"

    def pointer(self, name: str, kind: str = "real") -> str:
        """An address that it is given."""
        return f"reinterpret_cast<{kind}*>({self.arg(name)})"

    def _depth(self, product: Multiplied) -> int:
        assert product.buffer.product is not None
        return product.buffer.product.source.width

    def _columns(self, product: Multiplied) -> int:
        return product.columns(self.division)

    def resolved(self, buffer: Buffer) -> Buffer:
        return self.placed.program.resolve(buffer)

    def _room(self, size: int) -> int:
        """A place in shared memory."""
        at = self.shared
        self.shared += -(-size // ALIGNED) * ALIGNED
        return at

    @cached_property
    def meets_first(self) -> int:
        """The stage before or after which blocks first meet in a step; none: past the last."""
        for k, stage in enumerate(self.placed.stages):
            if stage.meets or (stage.products and self.division.sharing == "tag"):
                return k
            if stage.reductions:
                return k + 1
        return len(self.placed.stages)

    # -- the kernel ------------------------------------------------------------------------------

    def _kernel(self) -> Iterator[str]:
        placed = self.placed
        reductions = max((len(s.reductions) for s in placed.stages), default=0)
        yield "  char* const shared = shared_memory();"
        sums = []
        for k, product in enumerate(self.products):
            down, across, deep = self.division.warps(self._columns(product))
            wide = -(-self._columns(product) // 8)
            size = deep * self.division.rows * (wide * 8 + 2) * self.real_size
            sums.append(
                f"  real* const sums{k} = reinterpret_cast<real*>(shared + {self._room(size)});"
            )
        yield from sums
        if self.division.sharing == "cluster":
            for source in placed.sources:
                _, _, size = OPERANDS[self.operand]
                room = 2 * self.division.rows * self._own_depth(source) * size
                self.exchanges[source] = self._room(room)
        if reductions:
            rows, units = self.division.rows, max(
                self.division.units(f.width) for s in placed.stages for f, _, _ in s.reductions
            )  # fmt: skip
            for what, size in (
                ("each", reductions * rows * units),
                ("slices", self.division.threads),
                ("reduced", len(placed.reduced) * rows),
            ):
                at = self._room(size * self.real_size)
                yield f"  real* const {what} = reinterpret_cast<real*>(shared + {at});"
        yield f"  const long steps = {self.arg('steps')}, batch = {self.arg('batch')};"
        yield f"  const bool reverse = {self.arg('reverse')};"
        yield f"  const auto* const resets = {self.pointer('resets', 'const unsigned char')};"
        yield f"  const auto* const lengths = {self.pointer('lengths', 'const long long')};"
        yield "  const int part = blockIdx.x % PARTS;"
        for k, product in enumerate(self.products):
            yield from self._pack(k, product)
        yield f"  const long groups = {self.arg('groups')};"
        yield "  for (long group = blockIdx.x / PARTS; group < groups; group += gridDim.x / PARTS) {"
        yield "  const long first_row = group * ROWS;"
        yield "  const int rows = batch - first_row < ROWS ? int(batch - first_row) : ROWS;"
        yield "  const auto dead = [&](long t, long b) { return lengths && t >= lengths[b]; };"
        yield "  const auto again = [&](long t, long b) { return resets && resets[t * batch + b]; };"
        flags = self.pointer("flags", "unsigned")
        yield f"  Meeting meeting{{{flags} + group * PARTS, unsigned(part), 0}};"
        yield from self._loop()
        # Nobody goes, or goes on to other rows, while another reads what it has.
        yield "  cluster_barrier();" if self.division.sharing == "cluster" else "  block_barrier();"
        yield "  }"

    def _pack(self, k: int, product: Multiplied) -> Iterator[str]:
        _, deep, size = OPERANDS[self.operand]
        tiles = -(-self._depth(product) // deep) * -(-self._columns(product) // 8)
        bytes_ = tiles * (8 * size if deep == 1 else 256)
        assert product.buffer.product is not None
        units = self.division.units(product.units)
        if self.shared + bytes_ <= SHARED:
            where = f"shared + {self._room(bytes_)}"
        else:
            self.packed[k] = bytes_
            where = f"{self.pointer(f'packed {k}', 'char')} + blockIdx.x * {bytes_}L"
        offsets = ", ".join(map(str, product.offsets))
        yield f"  F::B* const packed{k} = reinterpret_cast<F::B*>({where});"
        yield f"  P{k}::pack(packed{k}, {self.pointer(f'matrix {k}', 'const real')}, "
        yield f"      {self.arg(f'down {k}')}, {self.arg(f'across {k}')}, [&](int c) {{"
        yield f"    constexpr int offsets[] = {{{offsets}}};"
        yield f"    const int unit = part * {units} + c % {units};"
        yield f"    return c < {self._columns(product)} && unit < {product.units} ? offsets[c / {units}] + unit : -1;"
        yield "  });"

    def _loop(self) -> Iterator[str]:
        placed = self.placed
        self._waiting: list[tuple[int, str]] = []
        yield from self._declare()
        yield "  { const long step = -1, t = 0, t_next = reverse ? steps - 1 : 0; (void)step; (void)t;"
        yield from self._begin()
        yield from self._fill()
        yield from self._load_ahead("next")
        yield "  }"
        if placed.meets:
            yield "  block_barrier();"
            if placed.stages[0].meets:
                yield "  meeting.arrive();"
        yield "  for (long step = 0; step < steps; ++step) {"
        yield "  const long t = reverse ? steps - 1 - step : step, t_next = reverse ? t - 1 : t + 1;"
        yield "  const bool is_last = step + 1 == steps;"
        yield from self._turn_ahead()
        steps = list(self._stages())
        for k, (width, _) in enumerate(self.late):
            yield f"  real late{k}[{self.division.elements(width)}];"
        yield from steps
        yield "  }"

    def _stages(self) -> Iterator[str]:
        placed = self.placed
        for k, stage in enumerate(placed.stages):
            if stage.meets and k:
                yield from self._arrive()
            if k == self.meets_first and not (k and placed.stages[k - 1].reductions):
                yield from self._load_now()
            if stage.meets:
                yield "  meeting.wait();"
            elif stage.products:  # whose sums of the step before all have read
                yield "  block_barrier();"
            for product in stage.products:
                number_ = self.numbers[product]
                assert product.buffer.product is not None
                source = self.resolved(product.buffer.product.source)
                where = self._exchange(source, "step")
                yield f"  P{number_}::run({where}, packed{number_}, sums{number_}, unsigned(step + 1));"
            if stage.products:
                yield "  block_barrier();"
            for product in stage.copies:
                yield from self._copy(product)
            for n, function in stage.functions:
                yield from self._function(n, function, k)
            if stage.reductions:
                yield from self._reduce(stage, k)
        yield from self._end()

    # -- memory that the kernel has for itself ---------------------------------------------------

    def _exchange(self, source: Buffer, step: str) -> str:
        """Where a source of products of a step lies for all blocks of the group."""
        parity = f"{step} & 1"
        _, deep, _ = OPERANDS[self.operand]
        if self.division.sharing == "cluster":
            size = self._own_depth(source) * self.division.rows
            at = f"shared + {self.exchanges[source]}"
            return f"(reinterpret_cast<Storage*>({at}) + (({parity}) * {size}))"
        size = -(-source.width // deep) * deep
        if self.division.sharing == "tag":
            size = size * OPERANDS[self.operand][2] // 4
        base = self.pointer(f"exchange {source.name}", "Source")
        return f"({base} + ((({parity}) * groups + group) * {size}L) * ROWS)"

    def _own_depth(self, source: Buffer) -> int:
        """How many units of a source a block writes."""
        every = self.placed.written(source)
        return len(every) * self.division.units(every[0][0])

    def _space(self, buffer: Buffer, parity: str = "(step & 1)") -> str:
        """Where what is no tensor lies, in rows."""
        return f"({self.pointer(f'space {buffer.name}')} + {parity} * batch * {buffer.width}L)"

    def _kept(self, buffer: Buffer, units: Units) -> str:
        """A thread's own values."""
        return f"kept_{buffer.name}_{units[0]}_{units[1]}"

    def _declare(self) -> Iterator[str]:
        """Registers: what a thread keeps, what it loads ahead."""
        for buffer, all_units in self.placed.kept.items():
            for units in sorted(all_units):
                elements, name = self.division.elements(units[0]), self._kept(buffer, units)
                yield f"  real {name}[{elements}];"
                if buffer in self.placed.states:
                    yield f"  real next_{name}[{elements}];"
        for n, function, node in self._ahead():
            elements = self.division.elements(function.width)
            yield f"  real now_{n}_{node.name}[{elements}];"
            if self._stage_of(n) < self.meets_first:
                yield f"  real next_{n}_{node.name}[{elements}];"

    def _each(self, width: int) -> Iterator[str]:
        """The beginning of a loop over a thread's rows and units of a width."""
        units = self.division.units(width)
        yield "#pragma unroll"
        yield f"  for (int e = 0; e < {self.division.elements(width)}; ++e) {{"
        yield f"    const int place = threadIdx.x + e * THREADS, row = place / {units}, own = place % {units};"
        yield f"    const int unit = part * {units} + own; const long b = first_row + row;"
        yield f"    const bool owned = place < ROWS * {units} && unit < {width}, inside = owned && row < rows;"
        yield "    (void)b; (void)unit; (void)inside;"

    def _inside(self, body: Iterator[str]) -> Iterator[str]:
        """Code for a thread's rows and units, and what its warp writes together after it."""
        self._posts: list[str] = []
        lines = list(body)
        for k, _ in enumerate(self._posts):
            yield f"    real posted{k} = 0;"
        yield "    if (inside) {"
        yield from lines
        yield "    }"
        if self._posts:
            yield from (f"    {post}" for post in self._posts)

    def _begin(self) -> Iterator[str]:
        """The states before the first step."""
        for state in self.placed.states:
            for units in sorted(self.placed.kept[state]):
                yield from self._each(units[0])
                yield from self._inside(self._before(state, units))
                yield "  }"

    def _before(self, state: Buffer, units: Units) -> Iterator[str]:
        yield f"      const long at = b * {state.width} + {units[1]} + unit;"
        yield from self._first(state.index)
        yield f"      {self._kept(state, units)}[e] = value;"
        yield from self._present(state, units, "0")

    def _first(self, k: int) -> Iterator[str]:
        yield f"      real value = {self.pointer(f'first {k}')}[at];"
        if self.placed.backward:
            width = self.state_of[k].width
            added = self.pointer(f"added {k}")
            yield f"      if ({self.arg(f'added {k}')}) value += {added}[t_next * batch * {width} + at];"
        else:
            yield f"      if (again(t_next, b) && {self.arg(f'again {k}')}) value = {self.pointer(f'again {k}')}[at];"

    def _present(self, state: Buffer, units: Units, step: str) -> Iterator[str]:
        """Writes ``value``, a state before a step, to where others read it."""
        if self.placed.read[state]:
            space = self._space(state, f"({step} & 1)")
            yield f"      {space}[b * {state.width} + {units[1]} + unit] = value;"
        yield from self._exchanged(state, units, "value", step)

    def _exchanged(self, source: Buffer, units: Units, value: str, step: str) -> Iterator[str]:
        if source in self.placed.sources and self.division.sharing == "tag":
            name = f"posted{len(self._posts)}"
            where = self._exchange(source, step)
            self._posts.append(
                f"post_element({where}, row, {units[1]} + unit, {name}, unsigned({step} + 1), owned);"
            )
            yield f"      {name} = {value};"
        elif source in self.placed.sources:
            unit = f"{units[1]} + unit"
            if self.division.sharing == "cluster":
                own = self.division.units(units[0])
                unit = f"{self.placed.written(source).index(units) * own} + own"
            where = self._exchange(source, step)
            yield f"      {where}[exchanged(row, {unit})] = OPERAND::round({value});"

    def _fill(self) -> Iterator[str]:
        """Sources that the step does not write, for the next one."""
        for source in self.placed.filled:
            yield from self._each(source.width)
            yield from self._inside(self._filled(source))
            yield "  }"

    def _filled(self, source: Buffer) -> Iterator[str]:
        yield f"      const real value = {self._tensor(source, 'unit', 't_next')};"
        yield from self._exchanged(source, (source.width, 0), "value", "(step + 1)")

    # -- reading ---------------------------------------------------------------------------------

    def _stage_of(self, n: int) -> int:
        return next(
            k for k, s in enumerate(self.placed.stages) if any(m == n for m, _ in s.functions)
        )

    def _is_static(self, buffer: Buffer) -> bool:
        """Whether nobody writes a buffer while the kernel runs."""
        carried = buffer in self.placed.states
        own = buffer.kind in ("product", "temporary", "after", "sum")
        return not carried and not own and buffer not in self._written

    @cached_property
    def _written(self) -> set[Buffer]:
        stores = {
            self.resolved(f.slots[s][0])
            for f in self.placed.program.functions
            for s, *_ in (*f.stores, *f.reductions)
        }
        return stores | {self.resolved(p) for p in self.placed.program.products}

    def _ahead(self) -> Iterator[tuple[int, Function, Node]]:
        """What is loaded before the step needs it."""
        for n, function in enumerate(self.placed.program.functions):
            if self.division.elements(function.width) > AHEAD or not self.placed.meets:
                continue
            for node, slot in function.loads.items():
                buffer, _ = function.slots[slot]
                if self._is_static(self.resolved(buffer)):
                    yield n, function, node

    def _load_now(self) -> Iterator[str]:
        """What is read after the meeting, loaded before it; what the next step reads before its own."""
        yield from self._load_all("now", "t", lambda n: self._stage_of(n) >= self.meets_first)
        yield "  if (!is_last) {"
        yield from self._load_all("next", "t_next", lambda n: self._stage_of(n) < self.meets_first)
        yield "  }"

    def _load_ahead(self, into: str) -> Iterator[str]:
        yield from self._load_all(into, "t_next", lambda n: self._stage_of(n) < self.meets_first)

    def _turn_ahead(self) -> Iterator[str]:
        for n, function, node in self._ahead():
            if self._stage_of(n) < self.meets_first:
                for e in range(self.division.elements(function.width)):
                    yield f"  now_{n}_{node.name}[{e}] = next_{n}_{node.name}[{e}];"

    def _load_all(self, into: str, t: str, wanted) -> Iterator[str]:  # type: ignore[no-untyped-def]
        ahead = [(n, f, node) for n, f, node in self._ahead() if wanted(n)]
        for n in dict.fromkeys(n for n, _, _ in ahead):
            function = self.placed.program.functions[n]
            yield from self._each(function.width)
            yield "    if (inside) {"
            for m, _, node in ahead:
                if m == n:
                    buffer, offset = function.slots[function.loads[node]]
                    unit = f"{offset} + unit" if divided(function, node, offset)[0] else f"{offset}"
                    yield f"      {into}_{n}_{node.name}[e] = {self._tensor(self.resolved(buffer), unit, t)};"
            yield "    }"
            yield "  }"

    def _tensor(self, buffer: Buffer, unit: str, t: str = "t") -> str:
        """What lies in memory that the kernel was given, at row b of step t."""
        if self.placed.backward and buffer.kind == "state":
            return self._past(buffer, unit, t)
        at = f"{t} * {self.arg(f'step {buffer.name}')} + b * {self.arg(f'row {buffer.name}')} + {unit}"
        base = self.pointer(f"data {buffer.name}")
        if self._is_static(buffer):
            return f"{base}[{at}]"
        return f"load_fresh({base} + ({at}))"

    def _past(self, buffer: Buffer, unit: str, t: str) -> str:
        """A state of the forward pass before the step, which came the other way."""
        k, width = f"past {buffer.index}", buffer.width
        at, earlier = f"b * {width} + {unit}", f"({t} + (reverse ? -1 : 1))"
        return (
            f"(again({t}, b) && {self.arg(f'again {k}')} ? {self.pointer(f'again {k}')}[{at}] "
            f": {earlier} < 0 || {earlier} >= steps ? {self.pointer(f'first {k}')}[{at}] "
            f": {self.pointer(f'history {k}')}[{earlier} * batch * {width} + {at}])"
        )

    def _value(self, n: int, function: Function, node: Node) -> str:
        """What a function reads, at a thread's e-th element."""
        buffer, offset = function.slots[function.loads[node]]
        units = divided(function, node, offset)
        product = self.by_buffer.get(buffer)
        if product is not None and product.kept:
            k, own = self.numbers[product], self.division.units(product.units)
            return f"P{k}::sum(sums{k}, row, {product.offsets.index(offset) * own} + own)"
        buffer = self.resolved(buffer)
        if units[0] <= 1 and (buffer, offset) in self.placed.reduced:
            return f"reduced[{self.placed.reduced[buffer, offset]} * ROWS + row]"
        if units in self.placed.kept.get(buffer, set()):
            return f"{self._kept(buffer, units)}[e]"
        if any((m, other) == (n, node) for m, _, other in self._ahead()):
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
        return self._tensor(buffer, unit)

    def _is_series(self, buffer: Buffer) -> bool:
        """Whether a buffer has a row for each step: only what a gradient needs is kept."""
        return buffer.series and self.name != "forward"

    def _is_private(self, buffer: Buffer) -> bool:
        return not self._is_series(buffer) and buffer.kind in (
            "product",
            "temporary",
            "local",
            "saved",
        )

    def _history(self, after: Buffer) -> str:
        slots = self.arg(f"slots {after.index}")
        base = self.pointer(f"history {after.index}")
        return f"({base} + ({slots} == steps ? t : t & 1) * batch * {after.width}L)"

    # -- writing ---------------------------------------------------------------------------------

    def _store(
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
            yield f"      {self._kept(buffer, units)}[e] = {value};"
        if self._is_series(buffer):
            at = f"t * {self.arg(f'step {buffer.name}')} + b * {self.arg(f'row {buffer.name}')} + {unit}"
            place = f"{self.pointer(f'data {buffer.name}')}[{at}]"
            seen = bool(self.placed.read.get(buffer))
            yield from self._later(place, f"({row_alive} ? {value} : real(0))", units[0], seen)
        elif self.placed.read.get(buffer):
            yield f"      {self._space(buffer)}[b * {width} + {unit}] = {value};"
        yield from self._exchanged(buffer, units, f"({row_alive} ? {value} : real(0))", "step")

    def _later(self, place: str, value: str, width: int, seen: bool) -> Iterator[str]:
        """A store that may wait until others are told of what they wait for, if none has ``seen`` it."""
        elements = self.division.elements(width)
        if seen or elements > AHEAD or not self.placed.meets:
            yield f"      {place} = {value};"
            return
        name = f"late{len(self.late)}"
        self.late.append((width, f"{place} = {name}[e];"))
        self._waiting.append(self.late[-1])
        yield f"      {name}[e] = {value};"

    def _arrive(self) -> Iterator[str]:
        """Tell the others that all is written that they read, then write what they do not."""
        yield "  meeting.arrive();"
        yield from self._flush()

    def _flush(self) -> Iterator[str]:
        for width in dict.fromkeys(width for width, _ in self._waiting):
            yield from self._each(width)
            yield "    if (inside) {"
            yield from (f"      {store}" for w, store in self._waiting if w == width)
            yield "    }"
            yield "  }"
        self._waiting = []

    def _turn(self, after: Buffer, units: Units, value: str) -> Iterator[str]:
        """From a state after this step to the one before the next."""
        k, width = after.index, after.width
        state = self.state_of[k]
        kept = self._kept(state, units)
        yield "      {"
        yield f"      const long at = b * {width} + {units[1]} + unit;"
        yield f"      real value = gone ? {kept}[e] : {value};"
        if units in self.placed.kept.get(after, set()):
            yield f"      {self._kept(after, units)}[e] = value;"
        if not self.placed.backward or self.placed.read.get(after):
            place = f"{self._history(after)}[b * {width} + {units[1]} + unit]"
            yield from self._later(place, "value", units[0], bool(self.placed.read.get(after)))
        if self.placed.backward:
            yield "      if (again(t, b)) {"
            yield f"        if ({self.arg(f'again_out {k}')}) {self.pointer(f'again_out {k}')}[at] += value;"
            yield "        value = 0;"
            yield "      }"
        yield f"      if (is_last) {{ if ({self.arg(f'last {k}')}) {self.pointer(f'last {k}')}[at] = value; }}"
        yield "      else {"
        if self.placed.backward:
            added = self.pointer(f"added {k}")
            yield f"      if ({self.arg(f'added {k}')}) value += {added}[t_next * batch * {width} + at];"
        else:
            yield f"      if (again(t_next, b) && {self.arg(f'again {k}')}) value = {self.pointer(f'again {k}')}[at];"
        yield f"      next_{kept}[e] = value;"
        yield from self._present(state, units, "(step + 1)")
        yield "      }"
        yield "      }"

    def _copy(self, product: Multiplied) -> Iterator[str]:
        """A product that goes to memory."""
        k, target = self.numbers[product], self.resolved(product.buffer)
        yield from self._each(product.units)
        yield from self._inside(
            self._written_as(f"P{k}::sum(sums{k}, row, own)", target, (product.units, 0))
        )
        yield "  }"

    def _written_as(self, value: str, target: Buffer, units: Units) -> Iterator[str]:
        yield "      const bool gone = dead(t, b);"
        yield f"      const real y = {value};"
        yield from self._store(target, units, "y", False, "!gone")

    def _function(self, n: int, function: Function, stage: int) -> Iterator[str]:
        _, units = parts(function)
        yield f"  // {self.name}_{n}"
        yield from self._each(function.width)
        results = {node: f"y{k}" for k, node in enumerate(units.outputs)}
        outputs = [*results.values()]
        if outputs:
            yield f"    real {', '.join(f'{y} = 0' for y in outputs)};"
        yield "    const bool gone = inside && dead(t, b);"
        yield from self._inside(self._computed(n, function, results))
        mine = [node for _, node in function.reductions]
        stage_reductions = [node for _, _, node in self.placed.stages[stage].reductions]
        own = self.division.units(function.width)
        for node in mine:
            r = stage_reductions.index(node)
            yield f"    if (place < ROWS * {own}) each[({r} * ROWS + row) * {own} + own] = inside && !gone ? {results[node.args[0]]} : {_start(node)};"
        yield "  }"

    def _computed(self, n: int, function: Function, results: dict[Node, str]) -> Iterator[str]:
        """A function's values of a thread's element, and where they go."""
        name, (row, units) = f"{self.name}_{n}", parts(function)
        yield "      if (!gone) {"
        for node in function.loads:
            yield f"      const real {node.name} = {self._value(n, function, node)};"
        for node in row.outputs:
            yield f"      {'bool' if node.is_mask else 'real'} {node.name};"
        if row.nodes:
            yield call(f"      {name}_row", [m.name for m in (*row.common, *row.outputs)], ";")
        if results:
            given = [*units.inputs, *units.common]
            yield call(
                f"      {name}_units<real>", [*(m.name for m in given), *results.values()], ";"
            )
        written = [
            *(m for _, m, _ in function.stores),
            *(m.args[0] for _, m in function.reductions),
        ]
        assert not set(written) & set(row.outputs), "what is written has a value for each unit"
        yield "      }"
        for slot, node, accumulate in function.stores:
            buffer, offset = function.slots[slot]
            value = results.get(node) or f"real({number(node)})"
            place = self.resolved(buffer), (function.width, offset)
            yield from self._store(*place, value, accumulate, "!gone")

    def _reduce(self, stage: Stage, k: int) -> Iterator[str]:
        """What reductions give, from all threads to all blocks."""
        found = stage.reductions
        gathered = f"({self.pointer('gathered')} + ((step & 1) * groups + group) * {self._most} * PARTS * ROWS)"
        yield "  block_barrier();"
        for r, (function, _, node) in enumerate(found):
            own = self.division.units(function.width)
            yield "  for (int i = threadIdx.x; i < ROWS; i += THREADS) {"
            yield f"    real total = {_start(node)};"
            yield f"    for (int own = 0; own < {own}; ++own) total = {node.op}(total, each[({r} * ROWS + i) * {own} + own]);"
            yield f"    {gathered}[({r} * PARTS + part) * ROWS + i] = total;"
            yield "  }"
        yield from self._arrive()
        if k + 1 == self.meets_first:
            yield from self._load_now()
        yield "  meeting.wait();"
        rows = self.division.rows
        slices = max(1, self.division.threads // rows)
        for function, slot, node in found:
            r = [m for _, _, m in found].index(node)
            buffer, offset = function.slots[slot]
            buffer = self.resolved(buffer)
            index = self.placed.reduced[buffer, offset]
            yield "  {"
            yield "    const int row = threadIdx.x % ROWS, slice = threadIdx.x / ROWS;"
            yield f"    real total = {_start(node)};"
            yield "#pragma unroll 8"
            yield f"    for (int p = slice; p < PARTS; p += {slices}) if (slice < {slices}) total = {node.op}(total, load_fresh({gathered} + ({r} * PARTS + p) * ROWS + row));"
            yield "    slices[threadIdx.x] = total;"
            yield "    block_barrier();"
            yield "    if (threadIdx.x < ROWS) {"
            yield f"      for (int s = 1; s < {slices}; ++s) total = {node.op}(total, slices[s * ROWS + threadIdx.x]);"
            yield f"      reduced[{index} * ROWS + threadIdx.x] = total;"
            yield "    }"
            yield "    block_barrier();"
            yield "  }"
            wanted = (
                self._is_series(buffer)
                or buffer.kind in ("after", "sum")
                or buffer in self.placed.sources
            )
            if wanted or self.placed.read.get(buffer) or self.placed.kept.get(buffer):
                yield from self._each(1)
                yield from self._inside(
                    self._written_as(f"reduced[{index} * ROWS + row]", buffer, (1, offset))
                )
                yield "  }"

    @property
    def _most(self) -> int:
        return max(len(s.reductions) for s in self.placed.stages)

    def _end(self) -> Iterator[str]:
        yield "  if (!is_last) {"
        for state in self.placed.states:
            for units in sorted(self.placed.kept[state]):
                name = self._kept(state, units)
                for e in range(self.division.elements(units[0])):
                    yield f"  {name}[{e}] = next_{name}[{e}];"
        yield from self._fill()
        if self.placed.stages[0].meets:
            yield "  meeting.arrive();"
        yield "  }"
        yield from self._flush()


def _start(reduction: Node) -> str:
    return "-INFINITY" if reduction.op == "row_max" else "real(0)"
