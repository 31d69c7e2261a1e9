"""What becomes of freed memory, where the C library is glibc, and what says that there is none."""

from __future__ import annotations

import ctypes
import errno
import re

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # their numbers in malloc.h

_REFUSED = re.compile(
    r"DefaultCPUAllocator: |(cannot|can't) allocate memory|\bout of memory\b|std::bad_alloc"
    r"|_STATUS_ALLOC_FAILED|Storage size calculation overflowed",
    re.IGNORECASE,
)
"""How allocators that raise a plain RuntimeError say that memory is short: PyTorch's own on a CPU,
CUDA's and its libraries', and C++'s."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory is short, and not only speaks of memory."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch.OutOfMemoryError is a RuntimeError: its text is its devices' allocator's.
    return isinstance(error, RuntimeError) and bool(_REFUSED.search(str(error)))


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next update, where it is glibc.

    Otherwise it gives large blocks back to the system after each update and gets them anew, page
    by page: 30 % of the time of a training step of a 2×256 LSTM on one core.
    """
    # No block, however large, is then one of its own that goes back to the system when freed.
    _set({_MMAP_MAX: 0, _TRIM_THRESHOLD: 1 << 30})


def return_freed_memory() -> None:
    """Let the C library give back at once what is freed, so that memory in use can be measured."""
    _set({_MMAP_THRESHOLD: 64 << 10, _TRIM_THRESHOLD: 0})


def _set(options: dict[int, int]) -> None:
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, value in options.items():
        mallopt(option, value)
