"""What says that memory is short, and what only speaks of memory."""

from __future__ import annotations

import pytest
import torch

from elman.allocation import is_out_of_memory


def _raised(call) -> BaseException:
    with pytest.raises(Exception) as error:  # whichever it is
        call()
    return error.value


def _written_twice():
    torch.zeros(1).expand(2).copy_(torch.ones(2))


@pytest.mark.parametrize(
    "error",
    [
        _raised(lambda: torch.empty(1 << 50)),
        _raised(lambda: torch.empty(1 << 62)),
        _raised(lambda: bytearray(1 << 60)),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=str,
)
def test_memory_that_is_short(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        _raised(_written_twice),
        RuntimeError("the memory c must be finite"),
        ValueError("out of memory"),
        OSError(2, "No such file or directory", "memory.txt"),
    ],
    ids=str,
)
def test_what_only_speaks_of_memory(error):
    assert not is_out_of_memory(error)
