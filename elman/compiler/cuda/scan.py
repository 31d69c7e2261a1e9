"""The scan of a linear recurrence on a GPU, in one launch (runtime/scan.cuh)."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from elman.compiler import recurrence
from elman.compiler.cuda.kernels import Device, Function
from elman.compiler.cuda.target import REALS, gpu_of, missing
from elman.compiler.memory import plain, pointer, resolved
from elman.compiler.modes import profiled
from elman.compiler.recurrence import Course, provide
from elman.errors import EngineWarning

LANES = 32
MOST_WARPS = 16
"""Of a block; the kernels' registers suffice for as many."""
WARPS = 8
"""Of a block where channels are many, so that a multiprocessor holds a few blocks."""

_FIELDS = (
    "steps", "batch", "units", "backwards", "chunks", "groups", "resets", "lengths", "a", "a_step",
    "a_row", "b", "b_step", "b_row", "start", "c", "last", "again", "states", "first", "to_a",
    "to_again", "flags", "board",
)  # fmt: skip

_SOURCE = """\
#include "scan.cuh"
namespace elman {{
extern "C" __global__ void __launch_bounds__({}) scan_time(Scan s) {{
  scan<{}, {}, {}, {}>(s);
}}
}}
"""


class Scanner:
    """Scans on a device.

    Args:
        device: that of a tensor.
    """

    def __init__(self, device: Callable[[Tensor], Device]):
        self._device = device
        self._loaded: dict[tuple[object, ...], Function] = {}
        self._fitting: dict[tuple[object, ...], int] = {}

    def forward(
        self, a: Tensor, b: Tensor, first: Tensor, again: Tensor | None, course: Course
    ) -> tuple[Tensor, Tensor]:
        """What :class:`recurrence.Kernel` asks of it."""
        c = torch.empty_like(b, memory_format=torch.contiguous_format)
        if not c.numel():
            return c, first.clone()
        last = torch.empty_like(c[0])
        self._run(a, b, c, last, again, course, start=plain(first))
        return c, last

    def backward(
        self,
        from_c: Tensor | None,
        from_last: Tensor | None,
        a: Tensor,
        c: Tensor,
        first: Tensor,
        again: Tensor | None,
        course: Course,
        wants_a: bool,
    ) -> list[Tensor]:
        """What :class:`recurrence.Kernel` asks of it."""
        c = plain(c)  # hooks for saved tensors may give it back laid out in another way
        to_b, to_first = torch.empty_like(c), torch.empty_like(c[0])
        to_a, to_again = self._run(
            a, from_c, to_b, to_first, again, course, backward=True, wants_a=wants_a, states=c,
            first=plain(first), start=None if from_last is None else plain(from_last),
        )  # fmt: skip
        if to_a is None:
            to_a = c.new_empty(0)
        elif _is_fixed(a, c):
            to_a = to_a.sum((0, 1)).reshape(a.shape)
        else:
            to_a = to_a.sum_to_size(a.shape)
        found = [to_a, to_b, to_first]
        if again is not None:
            found.append(torch.zeros_like(again) if to_again is None else to_again.sum(0))
        return found

    def _run(
        self, a: Tensor, b: Tensor | None, c: Tensor, last: Tensor, again: Tensor | None,
        course: Course, *, backward: bool = False, wants_a: bool = False,
        start: Tensor | None = None, states: Tensor | None = None, first: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
        """Launch the kernel; what goes to a and to ``again``, where that is asked."""
        device, fixed = self._device(c), _is_fixed(a, c)
        steps, batch, width = c.shape
        parts = 2 if course.complex else 1
        channels = batch * width // parts
        groups = -(-channels // LANES)
        of_warp = _steps(c.dtype, course.complex, fixed)
        warps = _warps(-(-steps // of_warp), groups, device.multiprocessors)
        chunks = -(-steps // (of_warp * warps))
        a = plain(a.reshape(-1)) if fixed else _rows(a, c)
        b = None if b is None else _rows(b, c)
        again = None if again is None else plain(again)
        resets = None if course.resets is None else plain(course.resets.to(torch.bool))
        lengths = None if course.lengths is None else plain(course.lengths.to(torch.int64))
        sums = chunks, batch, width
        to_a = c.new_empty(sums if fixed else c.shape) if wants_a else None
        to_again = c.new_empty(sums) if backward and resets is not None else None
        flags = torch.zeros(chunks * groups, dtype=torch.int32, device=c.device)
        board = c.new_empty((chunks - 1) * (3 * parts + 1) * channels)
        given = {
            "steps": steps, "batch": batch, "units": width // parts,
            "backwards": course.reverse != backward, "chunks": chunks, "groups": groups,
            "resets": pointer(resets), "lengths": pointer(lengths),
            "a": pointer(a), "a_step": 0 if fixed else a.stride(0),
            "a_row": 0 if fixed else a.stride(1),
            "b": pointer(b), "b_step": 0 if b is None else b.stride(0),
            "b_row": 0 if b is None else b.stride(1),
            "start": pointer(start), "c": pointer(c), "last": pointer(last),
            "again": pointer(again), "states": pointer(states), "first": pointer(first),
            "to_a": pointer(to_a), "to_again": pointer(to_again), "flags": pointer(flags),
            "board": pointer(board),
        }  # fmt: skip
        block = LANES * warps
        shared = 2 * block * (2 * parts + 1) * c.itemsize + 4 * warps
        key = device, c.dtype, course.complex, fixed, backward
        function = self._function(*key)
        parameters = struct.pack(f"{len(_FIELDS)}q", *(given[name] for name in _FIELDS))
        with device.current(), profiled("elman::scan"):
            if (*key, block) not in self._fitting:
                fitting = function.blocks_per_multiprocessor(block, shared)
                self._fitting[*key, block] = fitting * device.multiprocessors
            grid = min(chunks * groups, self._fitting[*key, block])
            function.launch(grid, block, shared, parameters, stream=device.stream())
        return to_a, to_again

    def _function(
        self, device: Device, real: torch.dtype, complex: bool, fixed: bool, backward: bool
    ) -> Function:
        key = device, real, complex, fixed, backward
        if key not in self._loaded:
            text = source(real, complex, fixed, backward)
            self._loaded[key] = device.load(text, "scan_time", real)
        return self._loaded[key]


def source(real: torch.dtype, complex: bool, fixed: bool, backward: bool) -> str:
    """The kernel, ``scan_time``: of complex numbers, with one a for all steps, of the gradient."""
    number, steps = "Complex" if complex else "real", _steps(real, complex, fixed)
    return _SOURCE.format(LANES * MOST_WARPS, number, steps, f"{fixed:d}", f"{backward:d}")


def _steps(real: torch.dtype, complex: bool, fixed: bool) -> int:
    """How many steps of a channel a thread has in its registers."""
    return (32 if complex and not fixed else 64) // real.itemsize


def _warps(parts: int, groups: int, multiprocessors: int) -> int:
    """Warps of a block, each with one of so many parts of the time.

    Few groups of channels leave many chunks of time under way, whose blocks wait for each other:
    then chunks are long.
    """
    if parts <= MOST_WARPS:
        return parts
    return WARPS if 4 * groups > multiprocessors else MOST_WARPS


def _is_fixed(a: Tensor, c: Tensor) -> bool:
    return a.numel() == a.shape[-1] == c.shape[-1]


def _rows(x: Tensor, c: Tensor) -> Tensor:
    """``x`` (T, B, W) in any strides but for its rows, which are units one after the other."""
    x = resolved(x).expand_as(c)
    return x if x.stride(-1) == 1 or c.shape[-1] == 1 else x.contiguous()


@cache
def _is_there() -> bool:
    """Whether the kernels can be built here; where they cannot, a warning says so, once."""
    why = missing()
    if why is not None:
        warnings.warn(
            f"linear recurrences are scanned by PyTorch's operations, which is slower: {why}.",
            EngineWarning,
            stacklevel=2,
        )
    return why is None


def _takes(c: Tensor) -> bool:
    return c.device.type == "cuda" and c.dtype in REALS and _is_there()


def kernel(
    device: Callable[[Tensor], Device], takes: Callable[[Tensor], bool]
) -> recurrence.Kernel:
    """The scan on a device, of what it takes."""
    scanner = Scanner(device)
    return recurrence.Kernel(takes, scanner.forward, scanner.backward)


provide("cuda", kernel(gpu_of, _takes))
