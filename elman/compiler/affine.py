"""``elman::affine``: the maps of the input, for all steps in one product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_library = torch.library.Library("elman", "FRAGMENT")
_library.define("affine(Tensor bias, Tensor x, Tensor weight) -> Tensor")


def _affine(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return torch.addmm(bias, x, weight)


def transposed_product(left: Tensor, right: Tensor) -> Tensor:
    """leftᵀ right, for left (K, M) and right (K, N).

    The product of the other order, turned, where the last axis is no multiple of a vector: there
    PyTorch's library takes a third longer for the order asked for.
    """
    if right.shape[1] % 16 and right.shape[1] < left.shape[1]:
        return (right.t() @ left).t().contiguous()
    return left.t() @ right


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, x, weight = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    for_bias, for_x, for_weight = ctx.needs_input_grad
    return (
        gradient.sum(0) if for_bias else None,
        gradient @ weight.t() if for_x else None,
        # The weight comes turned, so that its gradient, turned back, is contiguous.
        transposed_product(gradient, x).t() if for_weight else None,
    )


_library.impl("affine", _affine, "CPU")
torch.library.register_fake("elman::affine", _affine, lib=_library)
torch.library.register_autograd("elman::affine", _backward, setup_context=_set_up, lib=_library)
