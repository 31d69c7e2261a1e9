"""From programs to C++: one function for each pointwise function of a stage."""

from __future__ import annotations

from elman.compiler.ir import MASKS, Node
from elman.compiler.schedule import Function, Program

OPERATORS = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}",
    "neg": "-{0}", "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}",
    "eq": "{0} == {1}", "ne": "{0} != {1}", "both": "{0} & {1}", "either": "{0} | {1}",
}  # fmt: skip

TITLES = {
    "forward": "One step.",
    "train": "One step that keeps what its gradient needs.",
    "backward": "The gradient of one step.",
}


def emit(programs: dict[str, Program]) -> str:
    """The source of a cell's functions, called ``<program>_<number>``."""
    parts = ['#include "vector.hpp"\n\nusing namespace elman;']
    for name, program in programs.items():
        parts.append(f"// -- {TITLES[name]}\n{_outline(name, program)}")
        for k, function in enumerate(program.functions):
            parts.append(_function(f"{name}_{k}", function, program))
    return "\n\n".join(parts) + "\n"


def _outline(name: str, program: Program) -> str:
    """What happens in which stage, as a comment."""
    lines, number = [], 0
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
            lines.append(f"//    stage {stage}: {name}_{number}")
            number += 1
    return "\n".join(lines)


def _function(name: str, function: Function, program: Program) -> str:
    lines = [f'extern "C" void {name}(real* const* p, long begin, long end) {{']
    for k, (buffer, _) in enumerate(function.slots):
        lines.append(f"  real* const p{k} = p[{k}];  // {program.resolve(buffer).name}")
    wide = function.width > 1
    inside: list[str] = []
    for node, slot in function.loads.items():
        if wide and node.width == 1:
            lines.append(f"  const V {node.name} = splat(*p{slot});")
        else:
            inside.append(f"    const auto {node.name} = at.load(p{slot});")
    for node in function.nodes:
        if wide and node.width == 1:
            lines.append(f"  const auto {node.name} = {_expression(node)};")
        else:
            inside.append(f"    const auto {node.name} = {_expression(node)};")
    for slot, node, accumulate in function.stores:
        value = _real(node)
        if accumulate:
            value = f"at.load(p{slot}) + {value}"
        inside.append(f"    at.store(p{slot}, {value});")
    for _, node in function.reductions:
        best = node.op == "row_max"
        lines.append(f"  V {node.name} = splat({'-INFINITY' if best else '0'});")
        value = f"at.keep({_real(node.args[0])}, {'-INFINITY' if best else '0'})"
        combined = f"{'best_of' if best else 'add_to'}({node.name}, {value})"
        inside.append(f"    {node.name} = {combined};")
    lines += ["  each(begin, end, [&](auto at) {", *inside, "  });"]
    for slot, node in function.reductions:
        lines.append(f"  *p{slot} = {'max' if node.op == 'row_max' else 'sum'}({node.name});")
    return "\n".join([*lines, "}"])


def _expression(node: Node) -> str:
    if node.op == "where":
        mask, *values = node.args
        return f"where({_mask(mask)}, {', '.join(map(_real, values))})"
    if node.op in ("both", "either"):
        return OPERATORS[node.op].format(*map(_mask, node.args))
    if node.op == "negate":
        return f"~{_mask(node.args[0])}"
    args = [_real(a) for a in node.args]
    if node.op in OPERATORS:
        return OPERATORS[node.op].format(*args)
    return f"elman::{node.op}({', '.join(args)})"


def _real(node: Node) -> str:
    if node.op == "constant":
        value = node.attribute
        if value != value:
            return "splat(real(NAN))"
        if value in (float("inf"), float("-inf")):
            return f"splat(real({'-' if value < 0 else ''}INFINITY))"
        return f"splat(real({value!r}))"
    return f"real_of({node.name})" if node.op in MASKS else node.name


def _mask(node: Node) -> str:
    return node.name if node.op in MASKS else f"({_real(node)} != splat(0))"
