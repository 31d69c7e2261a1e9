"""From a program to one CUDA kernel that runs all steps.

What a function computes stands by itself (``statements.py``), how blocks multiply and meet in
``runtime/loop.cuh``, who does what in ``placement.py``, where values are in ``values.py``. Here
comes the order of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from elman.compiler.cuda.placement import Division, Multiplied, Placement, Stage, Units, divided
from elman.compiler.cuda.values import OPERANDS, Values
from elman.compiler.ir import Buffer, Node
from elman.compiler.schedule import Function
from elman.compiler.statements import call, definitions, number, parts

ALIGNED = 128


@dataclass
class Emitted:
    """A kernel's source, and how it is called.

    Attributes:
        source: CUDA C++.
        arguments: what it is given, by names that ``kernels.py`` knows.
        shared: bytes of shared memory of a block.
        packed: by product, the bytes of a block's slice of the matrix where it is not in shared
            memory.
    """

    source: str
    arguments: list[str]
    shared: int
    packed: dict[int, int]


def emit(
    name: str, placed: Placement, division: Division, operand: str, real_size: int, room: int
) -> Emitted:
    """The kernel of a program that is divided in this way.

    Matrices lie in shared memory as long as a block has ``room`` for them, in bytes.
    """
    return _Writer(name, placed, division, operand, real_size=real_size, room=room).write()


@dataclass
class _Writer(Values):
    real_size: int = 4
    room: int = 0
    shared: int = 0
    packed: dict[int, int] = field(default_factory=dict)

    def write(self) -> Emitted:
        operand, _, _ = OPERANDS[self.operand]
        division = self.division
        lines = [
            f"#define ROWS {division.rows}",
            f"#define PARTS {division.parts}",
            f"#define THREADS {division.threads}",
            f"#define CLUSTER {int(division.sharing == 'cluster')}",
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
                self.depth(product), self.columns(product),
                *division.warps(self.columns(product)), width, division.units(width),
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

    def _room(self, size: int) -> int:
        """A place in shared memory."""
        at = self.shared
        self.shared += -(-size // ALIGNED) * ALIGNED
        return at

    def _kernel(self) -> Iterator[str]:
        placed = self.placed
        reductions = max((len(s.reductions) for s in placed.stages), default=0)
        yield "  char* const shared = shared_memory();"
        sums = []
        for k, product in enumerate(self.products):
            _, _, deep = self.division.warps(self.columns(product))
            wide = -(-self.columns(product) // 8)
            size = deep * self.division.rows * (wide * 8 + 2) * self.real_size
            sums.append(
                f"  real* const sums{k} = reinterpret_cast<real*>(shared + {self._room(size)});"
            )
        yield from sums
        if self.division.sharing == "cluster":
            for source in placed.sources:
                _, _, size = OPERANDS[self.operand]
                room = 2 * self.division.rows * self.own_depth(source) * size
                self.exchanges[source] = self._room(room)
        if reductions:
            rows = self.division.rows
            for what, size in (
                ("each", reductions * rows * self._units),
                ("slices", reductions * self.division.threads),
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
        yield "  const long first_group = blockIdx.x / PARTS, stride = gridDim.x / PARTS;"
        yield "  for (long group = first_group; group < groups; group += stride) {"
        yield "  const long first_row = group * ROWS;"
        yield "  const int rows = batch - first_row < ROWS ? int(batch - first_row) : ROWS;"
        yield "  const auto dead = [&](long t, long b) { return lengths && t >= lengths[b]; };"
        yield "  const auto again ="
        yield "      [&](long t, long b) { return resets && resets[t * batch + b]; };"
        flags = self.pointer("flags", "unsigned")
        yield f"  Meeting meeting{{{flags} + group * PARTS, unsigned(part), 0}};"
        yield from self._loop()
        # Nobody goes, or goes on to other rows, while another reads what it has.
        yield "  cluster_barrier();" if self.division.sharing == "cluster" else "  block_barrier();"
        yield "  }"

    def _pack(self, k: int, product: Multiplied) -> Iterator[str]:
        _, deep, size = OPERANDS[self.operand]
        tiles = -(-self.depth(product) // deep) * -(-self.columns(product) // 8)
        bytes_ = tiles * (8 * size if deep == 1 else 256)
        assert product.buffer.product is not None
        units = self.division.units(product.units)
        if self.shared + bytes_ <= self.room:
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
        yield f"    const bool inside = c < {self.columns(product)} && unit < {product.units};"
        yield f"    return inside ? offsets[c / {units}] + unit : -1;"
        yield "  });"

    def _loop(self) -> Iterator[str]:
        placed = self.placed
        yield from self._declare()
        yield "  {"
        yield "    const long step = -1, t = 0, t_next = reverse ? steps - 1 : 0;"
        yield "    (void)step; (void)t;"
        yield from self._begin()
        yield from self._fill()
        yield from self._load_ahead("next")
        yield "  }"
        if placed.meets:
            yield "  block_barrier();"
            if placed.stages[0].meets:
                yield "  meeting.arrive();"
        yield "  for (long step = 0; step < steps; ++step) {"
        yield "  const long t = reverse ? steps - 1 - step : step;"
        yield "  const long t_next = reverse ? t - 1 : t + 1;"
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
                yield from self.arrive()
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
                given = f"packed{number_}, sums{number_}"
                yield f"  P{number_}::run({self.exchange(source, 'step')}, {given});"
            if stage.products:
                yield "  block_barrier();"
            for product in stage.copies:
                yield from self._copy(product)
            for n, function in stage.functions:
                yield from self._function(n, function, k)
            if stage.reductions:
                yield from self._reduce(stage, k)
        yield from self._end()

    # -- before a step, and ahead of it ------------------------------------------------------------

    def _declare(self) -> Iterator[str]:
        """Registers: what a thread keeps, what it loads ahead."""
        for buffer, all_units in self.placed.kept.items():
            for units in sorted(all_units):
                elements, name = self.division.elements(units[0]), self.kept(buffer, units)
                yield f"  real {name}[{elements}];"
                if buffer in self.placed.states:
                    yield f"  real next_{name}[{elements}];"
        for n, function, node in self.ahead():
            elements = self.division.elements(function.width)
            yield f"  real now_{n}_{node.name}[{elements}];"
            if self.stage_of(n) < self.meets_first:
                yield f"  real next_{n}_{node.name}[{elements}];"

    def _begin(self) -> Iterator[str]:
        """The states before the first step."""
        for state in self.placed.states:
            for units in sorted(self.placed.kept[state]):
                yield from self.each(units[0])
                yield from self.inside(self._before(state, units))
                yield "  }"

    def _before(self, state: Buffer, units: Units) -> Iterator[str]:
        yield f"      const long at = b * {state.width} + {units[1]} + unit;"
        yield from self.first(state.index)
        yield f"      {self.kept(state, units)}[e] = value;"
        yield from self.present(state, units, "0")

    def _fill(self) -> Iterator[str]:
        """Sources that the step does not write, for the next one."""
        for source in self.placed.filled:
            yield from self.each(source.width)
            yield from self.inside(self._filled(source))
            yield "  }"

    def _filled(self, source: Buffer) -> Iterator[str]:
        yield f"      const real value = {self.tensor(source, 'unit', 't_next')};"
        yield from self.exchanged(source, (source.width, 0), "value", "(step + 1)")

    def _load_now(self) -> Iterator[str]:
        """What is read after the meeting, loaded before it; what the next step reads before one."""
        yield from self._load_all("now", "t", lambda n: self.stage_of(n) >= self.meets_first)
        yield "  if (!is_last) {"
        yield from self._load_all("next", "t_next", lambda n: self.stage_of(n) < self.meets_first)
        yield "  }"

    def _load_ahead(self, into: str) -> Iterator[str]:
        yield from self._load_all(into, "t_next", lambda n: self.stage_of(n) < self.meets_first)

    def _turn_ahead(self) -> Iterator[str]:
        for n, function, node in self.ahead():
            if self.stage_of(n) < self.meets_first:
                for e in range(self.division.elements(function.width)):
                    yield f"  now_{n}_{node.name}[{e}] = next_{n}_{node.name}[{e}];"

    def _load_all(self, into: str, t: str, wanted: Callable[[int], bool]) -> Iterator[str]:
        ahead = [(n, f, node) for n, f, node in self.ahead() if wanted(n)]
        for n in dict.fromkeys(n for n, _, _ in ahead):
            function = self.placed.program.functions[n]
            yield from self.each(function.width)
            yield "    if (inside) {"
            for m, _, node in ahead:
                if m == n:
                    buffer, offset = function.slots[function.loads[node]]
                    unit = f"{offset} + unit" if divided(function, node, offset)[0] else f"{offset}"
                    value = self.tensor(self.resolved(buffer), unit, t)
                    yield f"      {into}_{n}_{node.name}[e] = {value};"
            yield "    }"
            yield "  }"

    # -- in a step ---------------------------------------------------------------------------------

    def _copy(self, product: Multiplied) -> Iterator[str]:
        """A product that goes to memory."""
        k, target = self.numbers[product], self.resolved(product.buffer)
        yield from self.each(product.units)
        yield from self.inside(
            self._written_as(f"P{k}::sum(sums{k}, row, own)", target, (product.units, 0))
        )
        yield "  }"

    def _written_as(self, value: str, target: Buffer, units: Units) -> Iterator[str]:
        yield "      const bool gone = dead(t, b);"
        yield f"      const real y = {value};"
        yield from self.store(target, units, "y", False, "!gone")

    def _function(self, n: int, function: Function, stage: int) -> Iterator[str]:
        _, units = parts(function)
        yield f"  // {self.name}_{n}"
        yield from self.each(function.width)
        results = {node: f"y{k}" for k, node in enumerate(units.outputs)}
        outputs = [*results.values()]
        if outputs:
            yield f"    real {', '.join(f'{y} = 0' for y in outputs)};"
        yield "    const bool gone = inside && dead(t, b);"
        yield from self.inside(self._computed(n, function, results))
        mine = [node for _, node in function.reductions]
        stage_reductions = [node for _, _, node in self.placed.stages[stage].reductions]
        own = self.division.units(function.width)
        for node in mine:
            r = stage_reductions.index(node)
            value = f"inside && !gone ? {results[node.args[0]]} : {_start(node)}"
            at = f"({r} * ROWS + row) * {self._units} + own"
            yield f"    if (place < ROWS * {own}) each[{at}] = {value};"
        yield "  }"

    def _computed(self, n: int, function: Function, results: dict[Node, str]) -> Iterator[str]:
        """A function's values of a thread's element, and where they go."""
        name, (row, units) = f"{self.name}_{n}", parts(function)
        yield "      if (!gone) {"
        for node in function.loads:
            yield f"      const real {node.name} = {self.value(n, function, node)};"
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
            yield from self.store(*place, value, accumulate, "!gone")

    def _reduce(self, stage: Stage, k: int) -> Iterator[str]:
        """What reductions give, from all threads to all blocks: of all at once, in two rounds."""
        found, rows = stage.reductions, self.division.rows
        # Each reduction of a step has a place of its own: a block may be at the next while another
        # still reads this one.
        at = f"((step & 1) * groups + group) * {len(self.placed.reduced)} * PARTS * ROWS"
        gathered = f"({self.pointer('gathered')} + {at})"
        numbers = [
            self.placed.reduced[self.resolved(f.slots[slot][0]), f.slots[slot][1]]
            for f, slot, _ in found
        ]
        yield "  block_barrier();"
        yield f"  for (int i = threadIdx.x; i < {len(found)} * ROWS; i += THREADS) {{"
        for r, (function, _, node) in enumerate(found):
            own = self.division.units(function.width)
            yield f"    if (i / ROWS == {r}) {{"
            yield f"      const real* const mine = each + i * {self._units};"
            yield f"      real total = {_start(node)};"
            yield f"      for (int u = 0; u < {own}; ++u) total = {node.op}(total, mine[u]);"
            yield f"      {gathered}[({numbers[r]} * PARTS + part) * ROWS + i % ROWS] = total;"
            yield "    }"
        yield "  }"
        yield from self.arrive()
        if k + 1 == self.meets_first:
            yield from self._load_now()
        yield "  meeting.wait();"
        slices = max(1, self.division.threads // rows)
        yield "  {"
        yield "    const int row = threadIdx.x % ROWS, slice = threadIdx.x / ROWS;"
        for r, (_, _, node) in enumerate(found):
            yield f"    real total{r} = {_start(node)};"
        yield "#pragma unroll 4"
        yield f"    for (int p = slice; p < PARTS && slice < {slices}; p += {slices}) {{"
        for r, (_, _, node) in enumerate(found):
            value = f"load_fresh({gathered} + ({numbers[r]} * PARTS + p) * ROWS + row)"
            yield f"      total{r} = {node.op}(total{r}, {value});"
        yield "    }"
        yield from (
            f"    slices[{r} * THREADS + threadIdx.x] = total{r};" for r in range(len(found))
        )
        yield "    block_barrier();"
        yield f"    for (int i = threadIdx.x; i < {len(found)} * ROWS; i += THREADS) {{"
        for r, (_, _, node) in enumerate(found):
            yield f"      if (i / ROWS == {r}) {{"
            yield f"        const real* const parts = slices + {r} * THREADS + i % ROWS;"
            yield f"        real total = {_start(node)};"
            yield f"        for (int s = 0; s < {slices}; ++s)"
            yield f"          total = {node.op}(total, parts[s * ROWS]);"
            yield f"        reduced[{numbers[r]} * ROWS + i % ROWS] = total;"
            yield "      }"
        yield "    }"
        yield "    block_barrier();"
        yield "  }"
        for (function, slot, _), index in zip(found, numbers, strict=True):
            buffer, offset = function.slots[slot]
            buffer = self.resolved(buffer)
            wanted = self.is_series(buffer) or buffer.kind in ("after", "sum")
            wanted |= buffer in self.placed.sources or bool(self.placed.read.get(buffer))
            if wanted or self.placed.kept.get(buffer):
                value = f"reduced[{index} * ROWS + row]"
                yield from self.each(1)
                yield from self.inside(self._written_as(value, buffer, (1, offset)))
                yield "  }"

    @property
    def _units(self) -> int:
        """Units that a block reduces, at most."""
        reductions = (r for stage in self.placed.stages for r in stage.reductions)
        return max(self.division.units(function.width) for function, _, _ in reductions)

    def _end(self) -> Iterator[str]:
        yield "  if (!is_last) {"
        for state in self.placed.states:
            for units in sorted(self.placed.kept[state]):
                name = self.kept(state, units)
                for e in range(self.division.elements(units[0])):
                    yield f"  {name}[{e}] = next_{name}[{e}];"
        yield from self._fill()
        if self.placed.stages[0].meets:
            yield "  meeting.arrive();"
        yield "  }"
        yield from self.flush()


def _start(reduction: Node) -> str:
    return "-INFINITY" if reduction.op == "row_max" else "real(0)"
