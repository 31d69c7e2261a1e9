"""The values of a graph's nodes by PyTorch's functions: what code for any target has to give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from elman.compiler.ir import Node, unknown
from elman.compiler.ops import OPS, REDUCTIONS


def evaluate(nodes: Iterable[Node], known: Mapping[Node, Tensor]) -> dict[Node, Tensor]:
    """The values of ``nodes``, and of what they are computed from, in double precision.

    Args:
        nodes: of one graph.
        known: the values (…, width) that are read: of every leaf, or of what comes after it.

    Returns:
        Each value (…, width); of a constant a number without axes, of a mask true or false.
    """
    values = {node: value.double() for node, value in known.items()}
    for root in nodes:
        for node in unknown(root, values, lambda n: n.args):
            values[node] = _value(node, [values[a] for a in node.args])
    return values


def _value(node: Node, args: list[Tensor]) -> Tensor:
    if node.op == "leaf":
        raise KeyError(f"the value of {node.name} is not known")
    if node.op == "constant":
        return torch.tensor(node.attribute, dtype=torch.float64)
    return OPS[node.op](*args) if node.op in OPS else REDUCTIONS[node.op].value(*args)
