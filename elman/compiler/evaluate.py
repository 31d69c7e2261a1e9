"""The loop in PyTorch's own operations: what derivatives of derivatives are computed with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from elman.compiler.ir import MASKS, Buffer, Node, Rows, walk
from elman.compiler.lower import Step

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "neg": torch.neg,
    "abs": torch.abs, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "exp": torch.exp,
    "expm1": torch.expm1, "log": torch.log, "log1p": torch.log1p, "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal, "relu": torch.relu, "sin": torch.sin,
    "cos": torch.cos, "erf": torch.erf, "sign": torch.sign, "floor": torch.floor,
    "atan": torch.atan, "maximum": torch.maximum, "minimum": torch.minimum, "lt": torch.lt,
    "le": torch.le, "gt": torch.gt, "ge": torch.ge, "eq": torch.eq, "ne": torch.ne,
    "both": torch.logical_and, "either": torch.logical_or, "negate": torch.logical_not,
    "where": torch.where,
}  # fmt: skip


def evaluate(
    step: Step,
    sequences: Sequence[Tensor],
    parameters: Sequence[Tensor],
    states: Sequence[Tensor],
    starts: Sequence[Tensor],
    resets: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """The states after every step, and after the last one; for arguments see ``elman::loop``."""
    steps = sequences[0].shape[0]
    present = list(states)
    every: list[list[Tensor]] = [present] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        if resets is not None:
            again = resets[t].unsqueeze(-1)
            present = [torch.where(again, a, s) for a, s in zip(starts, present, strict=True)]
        row = _Step(step, [s[t] for s in sequences], parameters, present)
        new = [row.rows(rows) for rows in step.new]
        if lengths is not None:
            alive = (t < lengths).unsqueeze(-1)
            new = [torch.where(alive, a, b) for a, b in zip(new, present, strict=True)]
        present = every[t] = new
    return [torch.stack(column) for column in zip(*every, strict=True)], present


class _Step:
    """One step: the values of its nodes and buffers."""

    def __init__(
        self,
        step: Step,
        sequences: Sequence[Tensor],
        parameters: Sequence[Tensor],
        states: Sequence[Tensor],
    ):
        self._parameters = parameters
        self._batch = states[0].shape[0]
        self._like = states[0]
        self._nodes: dict[Node, Tensor] = {}
        self._buffers: dict[Buffer, Tensor] = {}
        self._buffers.update(zip(step.sequences, sequences, strict=True))
        self._buffers.update(zip(step.states, states, strict=True))
        self._buffers.update((b, parameters[k].reshape(-1)) for k, b in step.vectors.items())

    def rows(self, rows: Rows) -> Tensor:
        """A value (B, width)."""
        pieces = [self._node(n).expand(self._batch, width) for n, width in rows.pieces]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)

    def _buffer(self, buffer: Buffer) -> Tensor:
        if buffer not in self._buffers:
            if buffer.product is not None:
                weight = self._parameters[buffer.product.weight]
                weight = weight.t() if buffer.product.transposed else weight
                value = self._buffer(buffer.product.source) @ weight
            else:
                ends = [o for o, _ in buffer.stores[1:]] + [buffer.width]
                value = self.rows(
                    Rows(
                        tuple(
                            (node, end - offset)
                            for (offset, node), end in zip(buffer.stores, ends, strict=True)
                        )
                    )
                )
            self._buffers[buffer] = value
        return self._buffers[buffer]

    def _node(self, root: Node) -> Tensor:
        for node in walk([root]):
            if node in self._nodes:
                continue
            args = [self._nodes[a] for a in node.args]
            if node.op == "leaf":
                end = node.offset + node.width
                value = self._buffer(node.buffer)[..., node.offset : end]
            elif node.op == "constant":
                value = self._like.new_tensor(node.attribute)
            elif node.op == "row_sum":
                value = args[0].sum(-1, keepdim=True)
            elif node.op == "row_max":
                value = args[0].amax(-1, keepdim=True)
            else:
                if node.op not in MASKS | {"where"}:
                    args = [a.to(self._like.dtype) for a in args]
                value = FUNCTIONS[node.op](*args)
            self._nodes[node] = value
        return self._nodes[root]
