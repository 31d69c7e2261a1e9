"""Products of whole matrices by the runtime: the maps of the input, and gradients of weights."""

from __future__ import annotations

import torch
from torch import Tensor

from elman.compiler.affine import provide
from elman.compiler.cpu.build import runtime
from elman.compiler.cpu.layouts import packer
from elman.compiler.memory import plain, pointer, resolved
from elman.compiler.modes import profiled

_product, _column_sums = packer("elman_product"), packer("elman_sum_rows")


def product(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    *,
    out: Tensor | None = None,
    operand: str = "",
) -> Tensor:
    """a b (+ bias), for a (I, K) and b (K, J) with any strides; added to ``out`` where it is given.

    Nothing is rounded to an ``operand``. Every element is summed in the order of k, whatever the
    other rows and the number of threads.
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
    (a_down, a_across), (b_down, b_across) = a.stride(), b.stride()
    record = _product(
        a=a.data_ptr(), a_down=a_down, a_across=a_across,
        b=b.data_ptr(), b_down=b_down, b_across=b_across,
        rows=a.shape[0], depth=a.shape[1], columns=b.shape[1],
        out=out.data_ptr(), out_row=out.stride(0),
        bias=pointer(bias), add=add, threads=torch.get_num_threads(),
    )  # fmt: skip
    with profiled("elman::product"):
        runtime(a.dtype).elman_product(record)
    return out


def column_sums(rows: Tensor) -> Tensor:
    """The sum of the rows of (I, J), summed in an order that does not depend on the threads."""
    rows = resolved(rows)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    out = rows.new_empty(rows.shape[1])
    record = _column_sums(
        rows=rows.data_ptr(), row=rows.stride(0), row_count=rows.shape[0], columns=rows.shape[1],
        out=out.data_ptr(), threads=torch.get_num_threads(),
    )  # fmt: skip
    runtime(rows.dtype).elman_sum_rows(record)
    return out


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


provide("cpu", _affine, _affine_backward)
