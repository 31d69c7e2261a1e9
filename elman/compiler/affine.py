"""``elman::affine``, x W + b: the maps of the input for all steps at once, as one operator.

PyTorch's own product is what it computes; a target may provide a faster one for its device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from elman.compiler.modes import is_batched, is_traced

_library = torch.library.Library("elman", "FRAGMENT")
_library.define("affine(Tensor? bias, Tensor x, Tensor weight) -> Tensor")
_library.define(
    "affine_backward(Tensor gradient, Tensor x, Tensor weight, bool[] wanted) -> Tensor[]"
)


def _affine(bias: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


def _affine_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]
) -> list[Tensor]:
    """The gradients of bias, x and weight turned, of those that are wanted, in this order."""
    ways = (lambda: gradient.sum(0), lambda: gradient @ weight.t(), lambda: gradient.t() @ x)
    return [way() for way, asked in zip(ways, wanted, strict=True) if asked]


lowered: ContextVar[torch.dtype | None] = ContextVar("elman_lowered", default=None)
"""The half-precision type that x and W are rounded to, on devices whose products take it."""


@contextmanager
def rounding(operand: str) -> Iterator[None]:
    """A block in which products round what they multiply: see :class:`elman.compiler.kernel.Shape`.

    What is not half precision is PyTorch's own setting for its products.
    """
    token = lowered.set({"bf16": torch.bfloat16, "fp16": torch.float16}.get(operand))
    try:
        yield
    finally:
        lowered.reset(token)


_Kernels = tuple[Callable[..., Tensor], Callable[..., list[Tensor]]]
_provided: dict[str, _Kernels] = {}


def provide(
    device: str, forward: Callable[..., Tensor], backward: Callable[..., list[Tensor]]
) -> None:
    """Compute ``elman::affine`` and its gradient on a type of device by these functions."""
    _provided[device] = forward, backward
    _library.impl("affine", forward, device.upper())
    _library.impl("affine_backward", backward, device.upper())


def _kernels(device: torch.device) -> _Kernels:
    return _provided.get(device.type, (_affine, _affine_backward))


def _fake_affine(bias: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


def _fake_affine_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]
) -> list[Tensor]:
    shapes = (gradient.shape[1:], x.shape, weight.t().shape)
    return [x.new_empty(s) for s, asked in zip(shapes, wanted, strict=True) if asked]


def affine(bias: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
    """``elman::affine``, x W + b, by the shortest way that there is."""
    if is_traced((bias, x, weight)):
        return torch.ops.elman.affine(bias, x, weight)
    return _Affine.apply(bias, x, weight)


class _Affine(torch.autograd.Function):
    """Without PyTorch's dispatch of operators, which takes longer than a small product."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
        if low := lowered.get():
            x, weight = x.to(low), weight.to(low)
        ctx.save_for_backward(x, weight)
        forward, _ = _kernels(x.device)
        return forward(bias, x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, gradient)


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, x, weight = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad)
    if torch.is_grad_enabled() or is_batched([gradient]):  # a gradient that has a gradient
        x, weight = x.to(gradient.dtype), weight.to(gradient.dtype)
        found = iter((gradient.sum(0), gradient @ weight.t(), gradient.t() @ x))
        bias_gradient, x_gradient, weight_gradient = (
            g if asked else None for g, asked in zip(found, wanted, strict=True)
        )
    else:
        _, backward = _kernels(x.device)
        if is_traced((gradient, x, weight)):
            backward = torch.ops.elman.affine_backward
        given = iter(backward(gradient, x, weight, wanted))
        bias_gradient, x_gradient, weight_gradient = (
            next(given) if asked else None for asked in wanted
        )
    # The weight comes turned, so that its gradient, turned back, is contiguous.
    return bias_gradient, x_gradient, None if weight_gradient is None else weight_gradient.t()


_library.impl("affine", _affine, "CompositeExplicitAutograd")
_library.impl("affine_backward", _affine_backward, "CompositeExplicitAutograd")
torch.library.register_fake("elman::affine", _fake_affine, lib=_library)
torch.library.register_fake("elman::affine_backward", _fake_affine_backward, lib=_library)
torch.library.register_autograd("elman::affine", _backward, setup_context=_set_up, lib=_library)
