"""Tensors as the engine reads them: addresses, behind which lie the numbers and nothing else.

PyTorch puts a few things between memory and what it stands for: a sign that is yet to be turned
(``z.conj().imag``), zeros that lie nowhere, strides. Whatever hands an address to the engine goes
through here.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from elman.errors import InputError


def dense(tensor: Tensor) -> Tensor:
    """``tensor`` with a place for each of its numbers, as PyTorch's functions all take it."""
    if torch.compiler.is_compiling():
        return tensor
    if tensor.layout is not torch.strided:
        return tensor.to_dense()
    if tensor._is_zerotensor():
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return tensor


def resolved(tensor: Tensor) -> Tensor:
    """``tensor`` with its numbers in memory as they are, in any strides.

    Raises:
        InputError: it has no memory.
    """
    try:
        # Within a storage that was freed, the address is the offset alone.
        held = not tensor.storage_offset() or tensor.untyped_storage().nbytes()
        if held and tensor.data_ptr() and not tensor.is_neg():
            return tensor
    except RuntimeError:  # it lies nowhere, as a sparse one
        pass
    tensor = dense(tensor)
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    if tensor.numel() and not (tensor.data_ptr() and tensor.untyped_storage().nbytes()):
        raise InputError(
            f"a tensor of shape {tuple(tensor.shape)} has no memory, because its storage was "
            "freed or resized to nothing: gather the weights before the network runs."
        )
    return tensor


def plain(tensor: Tensor) -> Tensor:
    """``tensor`` with its numbers in memory as they are, one after the other.

    Raises:
        InputError: it has no memory.
    """
    try:  # most are, and this is asked some dozens of times a call
        offset = tensor.storage_offset() or tensor.is_neg()
        if not offset and tensor.is_contiguous() and tensor.data_ptr():
            return tensor
    except RuntimeError:  # it lies nowhere, as a sparse one
        pass
    tensor = resolved(tensor)
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def all_plain(tensors: Iterable[Tensor]) -> list[Tensor]:
    """:func:`plain` of each."""
    return [plain(tensor) for tensor in tensors]


def pointer(tensor: Tensor | None) -> int:
    """Where a tensor's numbers begin in memory; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()
