"""Links past a layer: a part of its input joins its output, so that deep stacks learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

if TYPE_CHECKING:
    from elman.layers.recurrent import Recurrent

LINKS = (None, "residual", "highway")


def add_highway(network: Recurrent, layer: int, width: int, name: str) -> None:
    """Give a network the gate T = σ(W_T x + b_T) of a layer's link; ``name`` is W_T's."""
    like = next(network.parameters())
    weight = torch.empty(width, width, device=like.device, dtype=like.dtype)
    network.register_parameter(name, nn.Parameter(weight))
    network.register_parameter(f"bias_highway_l{layer}", nn.Parameter(weight.new_empty(width)))
    redraw(network, layer)


def redraw(network: Recurrent, layer: int) -> None:
    """Draw the weights of a layer's link anew, if it has one with weights."""
    if not (network._linked[layer] and network.skip == "highway"):
        return
    weight, bias = _gate(network, layer)
    bound = weight.shape[0] ** -0.5
    nn.init.uniform_(weight, -bound, bound)
    # Starting at −1 the link mostly carries, so that deep stacks learn at all.
    nn.init.constant_(bias, -1.0)


def join(network: Recurrent, layer: int, x: Tensor, y: Tensor) -> Tensor:
    """What a layer gives that made y of x: y itself, x + y, or T ⊙ y + (1 − T) ⊙ x."""
    if not network._linked[layer]:
        return y
    if network.skip == "residual":
        return x + y
    gate = torch.sigmoid(linear(x, *_gate(network, layer)))
    return gate * y + (1 - gate) * x


def _gate(network: Recurrent, layer: int) -> tuple[Tensor, Tensor]:
    weight, bias = (getattr(network, f"{name}_highway_l{layer}") for name in ("weight", "bias"))
    return weight, bias
