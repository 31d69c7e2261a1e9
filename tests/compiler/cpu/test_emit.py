"""Emitted code: as vectors and one unit at a time it gives what PyTorch's functions give.

``scalar`` is an emitter for another target, of the same stages: what differs from target to target
is in it, and in ``scalar.hpp``, which has its type of value.
"""

from __future__ import annotations

import ctypes
import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, sigmoid, tanh

import elman
from elman import Affine, Cell, Diagonal
from elman.compiler.compiled import compile_cell
from elman.compiler.cpu.build import build
from elman.compiler.cpu.emit import emit
from elman.compiler.evaluate import evaluate
from elman.compiler.ir import Buffer, Graph
from elman.compiler.ops import OPS, REDUCTIONS
from elman.compiler.schedule import Function, Program, Target, schedule
from elman.compiler.statements import definitions, number, parts

SCALAR = (Path(__file__).parent / "scalar.hpp").read_text(encoding="utf-8")
CLOSE = {torch.float32: 4e-6, torch.float64: 1e-14}
NUMBERS = torch.cat(
    [
        torch.linspace(-4, 4, 61),
        torch.tensor([0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 80.0, -80.0, 1e-20, -1e-20]),
        torch.tensor([math.inf, -math.inf, math.nan]),
    ]
)
"""Of no whole number of vectors on any machine."""


def scalar(programs: dict[str, Program]) -> str:
    """What the programs' functions compute, one unit at a time."""
    texts = [SCALAR, "namespace elman {"]
    for name, program in programs.items():
        for k, function in enumerate(program.functions):
            texts += [*definitions(f"{name}_{k}", function), unit_by_unit(f"{name}_{k}", function)]
    return "\n".join([*texts, "}"])


def unit_by_unit(name: str, function: Function) -> str:
    row, units = parts(function)
    lines = [f'extern "C" void {name}(real* const* p, long begin, long end) {{']
    for node, slot in function.loads.items():
        if node not in units.inputs:
            lines.append(f"  const real {node.name} = *p[{slot}];")
    for node in row.outputs:
        lines.append(f"  {'bool' if node.is_mask else 'real'} {node.name};")
    if row.nodes:
        lines.append(f"  {name}_row({', '.join(n.name for n in (*row.common, *row.outputs))});")
    starts = {-math.inf: "-INFINITY", 0.0: "0"}
    for _, node in function.reductions:
        lines.append(f"  real {node.name} = {starts[REDUCTIONS[node.op].start]};")
    lines.append("  for (long j = begin; j < end; ++j) {")
    results = {node: f"y{k}" for k, node in enumerate(units.outputs)}
    if results:
        given = [f"p[{function.loads[n]}][j]" for n in units.inputs]
        given += [*(n.name for n in units.common), *results.values()]
        lines.append(f"    real {', '.join(results.values())};")
        lines.append(f"    {name}_units<real>({', '.join(given)});")
    for slot, node, accumulate in function.stores:
        sign = "+=" if accumulate else "="
        lines.append(f"    p[{slot}][j] {sign} {results.get(node) or number(node)};")
    for _, node in function.reductions:
        lines.append(f"    {node.name} = {node.op}({node.name}, {results[node.args[0]]});")
    lines += ["  }", *(f"  *p[{slot}] = {n.name};" for slot, n in function.reductions), "}"]
    return "\n".join(lines)


class Peephole(Cell):
    """What is one function a stage, with the same weight at several places."""

    state = ("h", "c")
    gates = Affine("i f g o")
    peephole = Diagonal("i f o")

    def step(self, z, h, c):
        v = self.peephole
        i, f = sigmoid(z.i + v.i * c), sigmoid(z.f + v.f * c)
        c = f * c + i * tanh(z.g)
        return sigmoid(z.o + v.o * c) * tanh(c), c


class Rows(Cell):
    """Values that all units of a row have in common: numbers and masks, read, computed, stored."""

    state = ("h", "c", "s")
    gates = Affine("i g")

    def step(self, z, h, c, s):
        g = tanh(
            (z.g - z.g.mean(-1, keepdim=True)) / (z.g.std(-1, unbiased=False, keepdim=True) + 1)
        )
        total = c.sum(-1, keepdim=True)
        c = torch.where((total > 0) & (g > 0), c, 0.5 * c + sigmoid(z.i) * g)
        best = c.amax(-1, keepdim=True)
        s = torch.where(best > s, torch.rsqrt(1 + best * best), 0.1 * s)
        return tanh(c).softmax(-1), c, s


CELLS = (
    elman.cells.LSTM(3, 19),
    elman.cells.GRU(3, 37),
    Peephole(2, 5),
    Rows(2, 21),
    Rows(2, 1),
    elman.cells.LSTM(2, 64),
)


@pytest.mark.parametrize("real", CLOSE, ids=str)
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{type(c).__name__}-{c.hidden_size}")
def test_a_stage_is_the_same_for_vectors_and_for_single_units(cell, real):
    programs = compile_cell(cell.to(real), real).programs
    compare(programs, real, lambda width: torch.randn(width, dtype=real))


@pytest.mark.parametrize("real", CLOSE, ids=str)
def test_every_operation_gives_the_tables_value(real):
    compare({"forward": every_operation()}, real, lambda width: NUMBERS[:width].to(real))


def every_operation() -> Program:
    """A program that writes each operation's value of the same three rows."""
    graph, width = Graph(), len(NUMBERS)
    leaves = [graph.leaf(Buffer("sequence", k, width)) for k in range(3)]
    zero = graph.constant(0.0)
    given = dict(zip("xyz", leaves, strict=True))
    given |= dict(zip("mn", (graph.op("gt", a, zero) for a in leaves[1:]), strict=True))
    made = [graph.op(op.name, *(given[kind] for kind in op.operands)) for op in OPS.values()]
    one = graph.leaf(Buffer("sequence", 3, 1))  # the same for all units, in the place of each
    common = dict.fromkeys("xyz", one) | dict.fromkeys("mn", graph.op("gt", one, zero))
    made += [
        graph.op(op.name, *((common if kind == alike else given)[kind] for kind in op.operands))
        for op in OPS.values()
        if len(op.operands) > 1
        for alike in op.operands
    ]
    made += [
        graph.op("mul", leaves[0], graph.op("tanh", graph.reduce(r, leaves[1]))) for r in REDUCTIONS
    ]
    targets = [Target(Buffer("after", k, width), 0, node, width) for k, node in enumerate(made)]
    return schedule(graph, targets)


def compare(programs: dict[str, Program], real: torch.dtype, draw) -> None:
    """Both emitters' functions, beside the values of their nodes by PyTorch's functions."""
    torch.manual_seed(0)
    libraries = [build(text, real) for text in (emit(programs), scalar(programs))]
    for name, program in programs.items():
        for k, function in enumerate(program.functions):
            memory = [draw(function.width).roll(29 * slot) for slot, _ in enumerate(function.slots)]
            expected = evaluated(function, memory)
            for library in libraries:
                found = [t.clone() for t in memory]
                pointers = (ctypes.c_void_p * len(found))(*(t.data_ptr() for t in found))
                width = ctypes.c_long(function.width)
                getattr(library, f"{name}_{k}")(pointers, ctypes.c_long(0), width)
                torch.testing.assert_close(
                    found, expected, rtol=CLOSE[real], atol=CLOSE[real], equal_nan=True
                )


def evaluated(function: Function, memory: list[Tensor]) -> list[Tensor]:
    """The memory of a function's slots after it has run, by :mod:`elman.compiler.evaluate`."""
    known = {n: memory[slot][: max(n.width, 1)] for n, slot in function.loads.items()}
    values = evaluate([n for _, n, *_ in (*function.stores, *function.reductions)], known)
    after = [t.double() for t in memory]
    for slot, node, accumulate in function.stores:
        after[slot] = values[node].double() + (
            after[slot] if accumulate else torch.zeros(function.width)
        )
    for slot, node in function.reductions:
        after[slot][:1] = values[node]
    return [t.to(memory[0].dtype) for t in after]


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{type(c).__name__}-{c.hidden_size}")
def test_a_stage_calls_what_the_table_names(cell):
    named = {f for op in OPS.values() for f in re.findall(r"(\w+)\(", op.expression)}
    for name, program in compile_cell(cell, next(cell.parameters()).dtype).programs.items():
        for k, function in enumerate(program.functions):
            for text in definitions(f"{name}_{k}", function):
                _, body = text.split("{\n")
                assert set(re.findall(r"(\w+)\(", body)) <= named | {"splat", "real_of"}
