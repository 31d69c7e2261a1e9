"""Products of whole matrices by the engine, and ``elman::affine``: the maps of the input."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from elman.compiler.build import engine
from elman.compiler.call import profiled
from elman.compiler.memory import plain, resolved


def product(
    a: Tensor, b: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """a b (+ bias), for a (I, K) and b (K, J) with any strides; added to ``out`` where it is given.

    Every element is summed in the order of k, whatever the other rows and the number of threads.
    """
    if a.shape[1] != b.shape[0] or (bias is not None and bias.shape != b.shape[1:]):
        raise ValueError(f"no product of {a.shape}, {b.shape} and bias {bias}")
    if any(t is not None and (t.dtype != a.dtype or not t.is_cpu) for t in (a, b, bias)):
        raise ValueError("a product's matrices lie on the CPU and have one type")
    a, b = resolved(a), resolved(b)
    add = out is not None
    if out is None:
        out = a.new_empty(a.shape[0], b.shape[1])
    if bias is not None:
        bias = plain(bias)
    call = array(
        "q",
        [
            a.data_ptr(), *a.stride(), b.data_ptr(), *b.stride(), *a.shape, b.shape[1],
            out.data_ptr(), out.stride(0), 0 if bias is None else bias.data_ptr(), add,
        ],
    )  # fmt: skip
    with profiled("elman::product"):
        engine(a.dtype).elman_product(
            ctypes.c_void_p(call.buffer_info()[0]), torch.get_num_threads()
        )
    return out


def column_sums(rows: Tensor) -> Tensor:
    """The sum of the rows of (I, J), summed in an order that does not depend on the threads."""
    rows = resolved(rows)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    out = rows.new_empty(rows.shape[1])
    engine(rows.dtype).elman_sum_rows(
        ctypes.c_void_p(rows.data_ptr()), rows.stride(0), *rows.shape,
        ctypes.c_void_p(out.data_ptr()), torch.get_num_threads(),
    )  # fmt: skip
    return out


_library = torch.library.Library("elman", "FRAGMENT")
_library.define("affine(Tensor? bias, Tensor x, Tensor weight) -> Tensor")
_library.define(
    "affine_backward(Tensor gradient, Tensor x, Tensor weight, bool[] wanted) -> Tensor[]"
)


def _affine(bias: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
    return product(x, weight, bias)


def _affine_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]
) -> list[Tensor]:
    """The gradients of bias, x and weight that are wanted, in this order."""
    for_bias, for_x, for_weight = wanted
    out = [column_sums(gradient)] if for_bias else []
    if for_x:
        out.append(product(gradient, weight.t()))
    if for_weight:
        out.append(product(gradient.t(), x))
    return out


def _fake_affine(bias: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


def _fake_affine_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]
) -> list[Tensor]:
    shapes = (gradient.shape[1:], x.shape, weight.t().shape)
    return [x.new_empty(s) for s, asked in zip(shapes, wanted, strict=True) if asked]


def is_traced(tensors: Iterable[Tensor | None]) -> bool:
    """Whether somebody watches PyTorch's operators: a compiler, a mode, a kind of tensor."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or is_transformed()
        or any(t is not None and type(t) not in (Tensor, Parameter) for t in tensors)
    )


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` runs, or differentiation in forward mode."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def is_batched(gradients: Iterable[Tensor | None]) -> bool:
    """Whether a gradient stands for many, as with ``is_grads_batched``."""
    return any(
        g is not None
        and (
            torch._C._functorch.is_batchedtensor(g)
            or torch._C._functorch.is_legacy_batchedtensor(g)
        )
        for g in gradients
    )


def affine(bias: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
    """``elman::affine``, x W + b, by the shortest way that there is."""
    if is_traced((bias, x, weight)):
        return torch.ops.elman.affine(bias, x, weight)
    return _Affine.apply(bias, x, weight)


class _Affine(torch.autograd.Function):
    """Without PyTorch's dispatch of operators, which takes longer than a small product."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _affine(bias, x, weight)

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
        found = iter((gradient.sum(0), gradient @ weight.t(), gradient.t() @ x))
        bias_gradient, x_gradient, weight_gradient = (
            g if asked else None for g, asked in zip(found, wanted, strict=True)
        )
    else:
        traced = is_traced((gradient, x, weight))
        backward = torch.ops.elman.affine_backward if traced else _affine_backward
        given = iter(backward(gradient, x, weight, wanted))
        bias_gradient, x_gradient, weight_gradient = (
            next(given) if asked else None for asked in wanted
        )
    # The weight comes turned, so that its gradient, turned back, is contiguous.
    return bias_gradient, x_gradient, None if weight_gradient is None else weight_gradient.t()


_library.impl("affine", _affine, "CPU")
_library.impl("affine_backward", _affine_backward, "CPU")
torch.library.register_fake("elman::affine", _fake_affine, lib=_library)
torch.library.register_fake("elman::affine_backward", _fake_affine_backward, lib=_library)
torch.library.register_autograd("elman::affine", _backward, setup_context=_set_up, lib=_library)
