"""``elman::scan``: a linear recurrence over time, c_t = a_t ⊙ c_{t−1} + b_t, for all steps at once.

A target may provide a kernel for its device, whose gradient is the same recurrence from the last
step to the first; elsewhere, it is :func:`doubled` of PyTorch's operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.compiler.masks import inside
from elman.compiler.modes import is_batched, is_traced


class Course(NamedTuple):
    """How a scan goes through time.

    Attributes:
        resets: (T, B) bool: the memory goes back to its start before this step, in the order in
            which the steps are taken.
        lengths: (B), or None.
        reverse: from the last step to the first.
        complex: rows are complex numbers, real parts first.
    """

    resets: Tensor | None = None
    lengths: Tensor | None = None
    reverse: bool = False
    complex: bool = False


def scan(
    a: Tensor, b: Tensor, first: Tensor, again: Tensor | None, course: Course
) -> tuple[Tensor, Tensor]:
    """All c_t = a_t ⊙ c_{t−1} + b_t, and the last of them.

    Args:
        a: (T, B, W), or anything that expands to it; (W) costs nothing to expand.
        b: (T, B, W).
        first: c before the first step (B, W).
        again: c after a reset (B, W), or None where there are none.
        course: how it goes through time.

    Returns:
        c (T, B, W), which stays as it is past a sequence's end, and c after the last step (B, W).
    """
    apply = torch.ops.elman.scan if is_traced((a, b, first, again)) else _Scan.apply
    c, last = apply(a, b, first, again, *course)
    return c, last


class Kernel(NamedTuple):
    """What scans on a type of device.

    Attributes:
        takes: whether it has a kernel for tensors like this.
        forward: of a, b, first, again and the course: c and its last.
        backward: of the gradients of c and its last, a, c, first, again, the course, and whether
            the gradient of a is wanted: the gradients of a (empty where it is not), of b, of first
            and of again, where it is.
    """

    takes: Callable[[Tensor], bool]
    forward: Callable[..., tuple[Tensor, Tensor]]
    backward: Callable[..., list[Tensor]]


_provided: dict[str, Kernel] = {}


def provide(device: str, kernel: Kernel) -> None:
    """Scan by ``kernel`` on a type of device, where it can."""
    _provided[device] = kernel


def has_kernel(c: Tensor) -> bool:
    """Whether there is a kernel for tensors like this."""
    kernel = _provided.get(c.device.type)
    return kernel is not None and kernel.takes(c)


# -- by a kernel ------------------------------------------------------------------------------

_library = torch.library.Library("elman", "FRAGMENT")
_course = "Tensor? resets, Tensor? lengths, bool reverse, bool complex"
_library.define(
    f"scan(Tensor a, Tensor b, Tensor first, Tensor? again, {_course}) -> (Tensor, Tensor)"
)
_library.define(
    "scan_backward(Tensor? from_c, Tensor? from_last, Tensor a, Tensor c, Tensor first, "
    f"Tensor? again, {_course}, bool wants_a) -> Tensor[]"
)


def _scan(
    a: Tensor, b: Tensor, first: Tensor, again: Tensor | None, *course: Any
) -> tuple[Tensor, Tensor]:
    if not has_kernel(b):
        return doubled(a, b, first, again, Course(*course))
    return _provided[b.device.type].forward(a, b, first, again, Course(*course))


def _scan_backward(
    from_c: Tensor | None, from_last: Tensor | None, a: Tensor, c: Tensor, first: Tensor,
    again: Tensor | None, resets: Tensor | None, lengths: Tensor | None, reverse: bool,
    complex: bool, wants_a: bool,
) -> list[Tensor]:  # fmt: skip
    course = Course(resets, lengths, reverse, complex)
    kernel = _provided[c.device.type]
    return kernel.backward(from_c, from_last, a, c, first, again, course, wants_a)


def _fake_scan(
    a: Tensor, b: Tensor, first: Tensor, again: Tensor | None, *course: Any
) -> tuple[Tensor, Tensor]:
    return b.new_empty(b.shape), b.new_empty(b.shape[1:])


def _fake_scan_backward(
    from_c: Any, from_last: Any, a: Tensor, c: Tensor, first: Tensor, again: Tensor | None,
    resets: Any, lengths: Any, reverse: bool, complex: bool, wants_a: bool,
) -> list[Tensor]:  # fmt: skip
    shapes = [a.shape if wants_a else (0,), c.shape, first.shape]
    return [c.new_empty(s) for s in [*shapes, *([] if again is None else [again.shape])]]


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    a, _, first, again, *course = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(a, output[0], first, again)
    ctx.course = Course(*course)


def _backward(ctx: Any, from_c: Tensor | None, from_last: Tensor | None) -> tuple[Any, ...]:
    a, c, first, again = ctx.saved_tensors
    wants_a = ctx.needs_input_grad[0]
    if torch.is_grad_enabled() or not has_kernel(c) or is_batched((from_c, from_last)):
        found = _composed_backward(from_c, from_last, a, c, first, again, ctx.course)
    else:
        traced = is_traced((from_c, from_last, a, c, first, again))
        backward: Any = torch.ops.elman.scan_backward if traced else _scan_backward
        found = backward(from_c, from_last, a, c, first, again, *ctx.course, wants_a)
    to_a, to_b, to_first, *to_again = found
    to_start = to_again[0] if to_again else None
    return (to_a if wants_a else None, to_b, to_first, to_start, None, None, None, None)


def _composed_backward(
    from_c: Tensor | None, from_last: Tensor | None, a: Tensor, c: Tensor, first: Tensor,
    again: Tensor | None, course: Course,
) -> list[Tensor]:  # fmt: skip
    """The gradient by PyTorch's operations and a scan, which have a gradient again."""
    resets, lengths, reverse, complex = course
    one = torch.ones_like(first)
    if complex:
        half = one.shape[-1] // 2
        one = torch.cat([one[..., :half], torch.zeros_like(one[..., half:])], -1)
    factor = _conjugate(a, complex).expand_as(c)
    kept = factor  # of what comes from the next step
    alive = None if lengths is None else inside(c.shape[0], lengths)
    if alive is not None:
        kept = torch.where(alive, kept, one)
    if resets is not None:
        kept = torch.where(resets.unsqueeze(-1), 0, kept)
    g, _ = scan(
        previous(kept, one, not reverse),
        torch.zeros_like(c) if from_c is None else from_c,
        torch.zeros_like(first) if from_last is None else from_last,
        None,
        Course(reverse=not reverse, complex=complex),
    )
    earlier = previous(c, first, reverse)
    if resets is not None:
        assert again is not None
        earlier = torch.where(resets.unsqueeze(-1), again, earlier)
    if alive is not None:
        earlier = torch.where(alive, earlier, 0)
    to_a, to_b = _times(_conjugate(earlier, complex), g, complex), g
    if alive is not None:
        to_a, to_b = torch.where(alive, to_a, 0), torch.where(alive, to_b, 0)
    start = -1 if reverse else 0
    found = [to_a.sum_to_size(a.shape), to_b, _times(kept[start], g[start], complex)]
    if resets is not None:
        to_start = torch.where(resets.unsqueeze(-1), _times(factor, g, complex), 0)
        found.append(to_start.sum(0))
    elif again is not None:
        found.append(torch.zeros_like(again))
    return found


def previous(c: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """What there was before every step (T, B, W), of what there is after it."""
    if reverse:
        return torch.cat([c[1:], first.unsqueeze(0)])
    return torch.cat([first.unsqueeze(0), c[:-1]])


def _times(x: Tensor, y: Tensor, complex: bool) -> Tensor:
    if not complex:
        return x * y
    (p, q), (re, im) = x.chunk(2, -1), y.chunk(2, -1)
    return torch.cat([p * re - q * im, p * im + q * re], -1)


def _conjugate(x: Tensor, complex: bool) -> Tensor:
    if not complex:
        return x
    re, im = x.chunk(2, -1)
    return torch.cat([re, -im], -1)


class _Scan(torch.autograd.Function):
    """``elman::scan`` without PyTorch's dispatch of operators."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        out = _scan(*inputs)
        _set_up(ctx, inputs, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _backward(ctx, *gradients)


_library.impl("scan", _scan, "CompositeExplicitAutograd")
_library.impl("scan_backward", _scan_backward, "CompositeExplicitAutograd")
torch.library.register_fake("elman::scan", _fake_scan, lib=_library)
torch.library.register_fake("elman::scan_backward", _fake_scan_backward, lib=_library)
torch.library.register_autograd("elman::scan", _backward, setup_context=_set_up, lib=_library)


# -- by PyTorch's operations ------------------------------------------------------------------


def doubled(
    a: Tensor, b: Tensor, first: Tensor, again: Tensor | None, course: Course
) -> tuple[Tensor, Tensor]:
    """:func:`scan` in log₂ T rounds of PyTorch's operations, on any device.

    Two steps after each other are one, a₂ ⊙ (a₁ ⊙ c + b₁) + b₂; each round makes of every step and
    of as many before it one that reaches twice as far (Hillis & Steele, 1986).
    """
    resets, lengths, reverse, complex = course
    a = a.expand_as(b)
    if complex:
        a, b, first, again = (_as_complex(v) for v in (a, b, first, again))
    restarted = None  # where the past is not read at all, which may be infinite
    if resets is not None:
        assert again is not None
        restarted = resets.unsqueeze(-1)
        a, b = torch.where(restarted, 0, a), torch.where(restarted, a * again + b, b)
    if lengths is not None:
        alive = inside(b.shape[0], lengths)
        a, b = torch.where(alive, a, 1), torch.where(alive, b, 0)
    if reverse:
        a, b, restarted = a.flip(0), b.flip(0), None if restarted is None else restarted.flip(0)
    if restarted is not None:
        first = torch.where(restarted[0], 0, first)
    b = torch.cat([(a[0] * first + b[0]).unsqueeze(0), b[1:]])
    c, reach = b, 1
    while reach < len(c):
        past = c[:-reach]
        if restarted is not None:
            past = torch.where(restarted[reach:], 0, past)
            restarted = torch.cat([restarted[:reach], restarted[reach:] | restarted[:-reach]])
        c = torch.cat([c[:reach], c[reach:] + a[reach:] * past])
        a = torch.cat([a[:reach], a[reach:] * a[:-reach]])
        reach *= 2
    # last must be no view of c: an operator's outputs share no memory.
    last = c[-1].clone()
    c = c.flip(0) if reverse else c
    if complex:
        return torch.cat([c.real, c.imag], -1), torch.cat([last.real, last.imag], -1)
    return c, last


def _as_complex(row: Tensor | None) -> Any:
    return None if row is None else torch.complex(*row.chunk(2, -1))
