"""From programs to C++ for the vectors of a CPU.

What a function computes stands by itself (``statements.py``). Here come the loop over the units,
by two vectors, by one, and what is left, and their loads and stores (``vector.hpp``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from elman.compiler.ir import Node
from elman.compiler.ops import REDUCTIONS
from elman.compiler.schedule import Function, Program
from elman.compiler.statements import call, common_type, definitions, number, parts

TITLES = {
    "forward": "One step.",
    "train": "One step that keeps what its gradient needs.",
    "backward": "The gradient of one step.",
}


def emit(programs: Mapping[str, Program]) -> str:
    """The source of a cell's functions, called ``<program>_<number>``."""
    texts = ['#include "vector.hpp"', "namespace elman {"]
    for name, program in programs.items():
        texts.append(f"// -- {TITLES[name]}\n{_outline(name, program)}")
        for k, function in enumerate(program.functions):
            texts += [*definitions(f"{name}_{k}", function), _run(f"{name}_{k}", function, program)]
    return "\n\n".join([*texts, "}  // namespace elman"]) + "\n"


def _outline(name: str, program: Program) -> str:
    """What happens in which stage, as a comment."""
    lines, count = [], 0
    for stage, (products, functions) in enumerate(program.stages):
        for buffer in products:
            product = buffer.product
            assert product is not None
            turned = "ᵀ" if product.transposed else ""
            source, target = program.resolve(product.source), program.resolve(buffer)
            lines.append(
                f"//    stage {stage}: {target.name} = {source.name} · W{product.weight}{turned}"
            )
        for _ in functions:
            lines.append(f"//    stage {stage}: {name}_{count}")
            count += 1
    return "\n".join(lines)


def _run(name: str, function: Function, program: Program) -> str:
    """The loop over a row's units, as the engine calls it."""
    row, units = parts(function)
    lines = [f'extern "C" void {name}(real* const* p, long begin, long end) {{']
    for k, (buffer, _) in enumerate(function.slots):
        lines.append(f"  real* const p{k} = p[{k}];  // {program.resolve(buffer).name}")
    for node, slot in function.loads.items():
        if node not in units.inputs:
            lines.append(f"  const V {node.name} = splat(*p{slot});")
    if row.nodes:
        lines += [f"  {common_type(n)} {n.name};" for n in row.outputs]
        lines.append(call(f"  {name}_row", [n.name for n in (*row.common, *row.outputs)], ";"))
    for _, node in function.reductions:
        lines.append(f"  V {node.name} = splat({_start(node)});")
    lines.append("  each(begin, end, [&](auto at) {")
    results = {n: f"y{k}" for k, n in enumerate(units.outputs)}
    if results:
        loads = [f"at.load(p{function.loads[n]})" for n in units.inputs]
        given = [*loads, *(n.name for n in units.common), *results.values()]
        lines.append(f"    typename decltype(at)::Value {', '.join(results.values())};")
        lines.append(call(f"    {name}_units", given, ";"))
    for slot, node, accumulate in function.stores:
        before = f"at.load(p{slot}) + " if accumulate else ""
        lines.append(f"    at.store(p{slot}, {before}{results.get(node) or number(node)});")
    for _, node in function.reductions:
        value = f"at.keep({results[node.args[0]]}, {_start(node)})"
        lines.append(f"    {node.name} = {node.op}({node.name}, {value});")
    lines.append("  });")
    lines += [f"  *p{slot} = {node.op}({node.name});" for slot, node in function.reductions]
    return "\n".join([*lines, "}"])


def _start(reduction: Node) -> str:
    start = REDUCTIONS[reduction.op].start
    return "-INFINITY" if start == -math.inf else repr(start)
