"""The scan of a linear recurrence by the runtime's kernel (runtime/scan.hpp)."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from elman.compiler.cpu.build import REALS, BuildError, runtime
from elman.compiler.cpu.layouts import packer
from elman.compiler.cpu.products import column_sums
from elman.compiler.memory import plain, pointer
from elman.compiler.recurrence import Course, Kernel, provide
from elman.errors import EngineWarning


@cache
def _is_built(real: torch.dtype) -> bool:
    """Whether the engine can be built here; where it cannot, a warning says so, once."""
    try:
        runtime(real)
    except BuildError as why:
        warnings.warn(
            f"linear recurrences are scanned by PyTorch's operations, which is slower: {why}.",
            EngineWarning,
            stacklevel=2,
        )
        return False
    return True


def _takes(c: Tensor) -> bool:
    return c.device.type == "cpu" and c.dtype in REALS and _is_built(c.dtype)


_record = packer("elman_scan")


def _run(
    a: Tensor, first: Tensor, again: Tensor | None, c: Tensor, course: Course, *,
    b: Tensor | None = None, from_c: Tensor | None = None, carried: Tensor | None = None,
    to_a: Tensor | None = None, to_b: Tensor | None = None, to_again: Tensor | None = None,
) -> None:  # fmt: skip
    """Call the kernel, of the gradient where ``to_b`` is given; runtime/scan.hpp has the words."""
    steps, batch, width = c.shape
    a = _spread(a, c)
    first, c, b = plain(first), plain(c), None if b is None else plain(b)
    again = None if again is None else plain(again)
    resets = None if course.resets is None else plain(course.resets.to(torch.bool))
    lengths = None if course.lengths is None else plain(course.lengths.to(torch.int64))
    a_step, a_row = (0, 0) if a.dim() == 1 else a.stride()[:2]
    record = _record(
        steps=steps, batch=batch, units=width // 2 if course.complex else width, width=width,
        reverse=course.reverse, backward=to_b is not None,
        resets=pointer(resets), lengths=pointer(lengths),
        a=pointer(a), a_step=a_step, a_row=a_row, b=pointer(b),
        first=pointer(first), again=pointer(again), c=pointer(c),
        from_c=pointer(from_c), carried=pointer(carried), to_a=pointer(to_a),
        to_b=pointer(to_b), to_again=pointer(to_again), threads=torch.get_num_threads(),
    )  # fmt: skip
    runtime(c.dtype).elman_scan(record)


def _spread(a: Tensor, c: Tensor) -> Tensor:
    """``a`` as (W) where it is the same for all steps and rows, as (T, B, W) otherwise."""
    return plain(a.reshape(-1) if _is_fixed(a, c) else a.expand_as(c))


def _is_fixed(a: Tensor, c: Tensor) -> bool:
    return a.numel() == a.shape[-1] == c.shape[-1]


def _forward(
    a: Tensor, b: Tensor, first: Tensor, again: Tensor | None, course: Course
) -> tuple[Tensor, Tensor]:
    c = torch.empty_like(b, memory_format=torch.contiguous_format)
    if not c.numel():
        return c, first.clone()
    _run(a, first, again, c, course, b=b)
    return c, c[0 if course.reverse else -1].clone()


def _backward(
    from_c: Tensor | None,
    from_last: Tensor | None,
    a: Tensor,
    c: Tensor,
    first: Tensor,
    again: Tensor | None,
    course: Course,
    wants_a: bool,
) -> list[Tensor]:
    c = plain(c)  # hooks for saved tensors may give it back laid out in another way
    fixed = _is_fixed(a, c)
    to_a = c.new_zeros(c.shape[1:]) if fixed else torch.empty_like(c)
    carried, to_again = c.new_zeros(2, *first.shape)
    if from_last is not None:
        carried.copy_(from_last)
    to_b = torch.empty_like(c)
    _run(
        a, first, again, c, course,
        from_c=None if from_c is None else plain(from_c), carried=carried,
        to_a=to_a if wants_a else None, to_b=to_b, to_again=to_again,
    )  # fmt: skip
    if not wants_a:
        to_a = c.new_empty(0)
    elif fixed:
        to_a = column_sums(to_a).reshape(a.shape)
    else:
        to_a = to_a.sum_to_size(a.shape)
    return [to_a, to_b, carried.clone(), *([] if again is None else [to_again.clone()])]


provide("cpu", Kernel(_takes, _forward, _backward))
