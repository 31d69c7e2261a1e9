"""The shapes that sequences arrive in: batched or not, batch first or not, padded or packed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from elman import nested
from elman.cells.step_checks import under_autocast
from elman.compiler.memory import dense
from elman.compiler.modes import asserted, is_recorded
from elman.errors import InputError


@dataclass(frozen=True)
class Sequences:
    """A batch as the engines take it, and the way back to what the user gave.

    Attributes:
        x: (T, B, M), zero past the end of each sequence.
        lengths: (B) int64, or None.
        resets: (T, B) bool, false past the end of each sequence, or None.
        packed: the PackedSequence that it came from, or None.
        batched: whether what came had a batch.
        batch_first: whether what came was (B, T, …).
    """

    x: Tensor
    lengths: Tensor | None
    resets: Tensor | None
    packed: PackedSequence | None
    batched: bool
    batch_first: bool

    @classmethod
    def of(
        cls,
        x: Tensor | PackedSequence,
        lengths: Tensor | Sequence[int] | None,
        resets: Tensor | None,
        width: int,
        batch_first: bool,
    ) -> Self:
        """Check what the user gave and bring it to (T, B, M)."""
        if isinstance(x, PackedSequence):
            if lengths is not None:
                raise InputError(
                    "lengths and a PackedSequence were both given: "
                    "a PackedSequence has its lengths, so leave out lengths."
                )
            padded, sizes = pad_packed_sequence(x)
            _check_width(padded, width)
            resets = _check_resets(resets, padded, batch_first, True)
            lengths = sizes.to(padded.device)
            return cls(padded, lengths, _within(resets, lengths), x, True, batch_first)
        if not isinstance(x, Tensor):
            raise InputError(
                f"x must be a tensor or a PackedSequence, received {type(x).__name__}."
            )
        check_dense(x)
        if x.dim() not in (2, 3):
            axes = "batch, time" if batch_first else "time, batch"
            raise InputError(
                f"x must have 3 axes ({axes}, {width}), or 2 without a batch, "
                f"received the shape {tuple(x.shape)}."
            )
        _check_width(x, width)
        x, batched = dense(x), x.dim() == 3
        x = x.unsqueeze(1) if not batched else x.transpose(0, 1) if batch_first else x
        resets = _check_resets(resets, x, batch_first, batched)
        if lengths is not None:
            lengths = check_lengths(lengths, x)
            # Whatever the padding holds, infinities and NaN too, reaches no gradient.
            x = torch.where(inside(x, lengths).unsqueeze(-1), x, 0)
            resets = _within(resets, lengths)
        return cls(x, lengths, resets, None, batched, batch_first)

    @property
    def size(self) -> int:
        """B, the number of sequences."""
        return self.x.shape[1]

    def state_out(self, state: Any) -> Any:
        """A state as the user expects it, without the batch axis that was added."""
        return state if self.batched else nested.map(lambda s: s.squeeze(-2), state)

    def out(self, y: Tensor) -> Any:
        """An output (T, B, S) laid out as x came."""
        if self.packed is not None:
            order, lengths = self.packed.sorted_indices, self.lengths
            assert lengths is not None
            if order is not None:
                y, lengths = y.index_select(1, order), lengths[order]
            return self.packed._replace(data=pack_padded_sequence(y, lengths.cpu()).data)
        if not self.batched:
            return y.squeeze(1)
        return y.transpose(0, 1) if self.batch_first else y


def check_dense(x: Tensor) -> None:
    """Raise where x is sparse, or a nest of tensors."""
    if x.layout is not torch.strided or x.is_nested:
        how = "padded, with lengths=…" if x.is_nested else "x.to_dense()"
        raise InputError(f"x must be a dense tensor, received {x.layout}: give {how}.")


def check_row(x: Any, width: int) -> None:
    """Raise where x is not what one step reads, (B, width) or (width)."""
    received = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
    if len(received) not in (1, 2) or received[-1] != width:
        raise InputError(f"step expects x of shape (B, {width}) or ({width}), received {received}.")


def check_resets(resets: Any, shape: tuple[int, ...]) -> None:
    """Raise where resets are no tensor of bool of this shape."""
    if not isinstance(resets, Tensor):
        raise InputError(
            f"resets must be a tensor, bool of shape {shape}, received {type(resets).__name__}."
        )
    if resets.shape != shape or resets.dtype != torch.bool:
        raise InputError(
            f"resets must be bool of shape {shape}, received {resets.dtype} of shape "
            f"{tuple(resets.shape)}."
        )


def check_types(like: Tensor, x: Tensor, states: Iterable[tuple[Tensor, ...]]) -> None:
    """Raise where x or a state is of another type than ``like``, a weight, or lies elsewhere.

    Under autocast the types may differ.
    """
    real, device = like.dtype, like.device
    free = under_autocast(device)
    # What numbers that are not real mean, as indices, is for the cell to say.
    given = (x,) if x.is_floating_point() or x.is_complex() else ()
    for what, group in (("x", given), *(("the state", s) for s in states)):
        for tensor in group:
            if tensor.device != device:
                raise InputError(
                    f"{what} must lie on {device}, as the weights do, received {tensor.device}: "
                    "move one."
                )
            if tensor.dtype != real and not free:
                raise InputError(
                    f"{what} must have the weights' dtype {real}, received {tensor.dtype}: "
                    f"call .to({real}) on it, or .to({tensor.dtype}) on the network."
                )


def check_lengths(lengths: Tensor | Sequence[int], x: Tensor) -> Tensor:
    """Lengths (B), int64, of the sequences x (T, B, …).

    Raises:
        InputError: they are not B integers from 0 to T.
    """
    lengths = torch.as_tensor(lengths, device=x.device)
    steps, batch = x.shape[:2]
    whole = not (lengths.is_floating_point() or lengths.dtype == torch.bool)
    if lengths.shape != (batch,) or not (whole or batch == 0):  # an empty list is float
        raise InputError(
            f"lengths must be {batch} integers, one a sequence, received "
            f"{lengths.dtype} of shape {tuple(lengths.shape)}."
        )
    if is_recorded() or torch.compiler.is_compiling():  # their values come when it runs
        message = "lengths must lie between 0 and the number of steps"
        fit = ((lengths >= 0) & (lengths <= steps)).all()
        return asserted(fit, message, lengths).long()
    if batch and not 0 <= int(lengths.min()) <= int(lengths.max()) <= steps:
        raise InputError(
            f"lengths must lie between 0 and {steps}, the number of steps, received values "
            f"from {int(lengths.min())} to {int(lengths.max())}."
        )
    return lengths.long()


def inside(x: Tensor, lengths: Tensor) -> Tensor:
    """Which steps of x (T, B, …) lie within their sequence: (T, B) bool."""
    return torch.arange(x.shape[0], device=x.device).unsqueeze(1) < lengths


def mask_of(x: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
    """As :func:`inside`, of lengths as a user gives them; true everywhere where there are none.

    Raises:
        InputError: the lengths are not B integers from 0 to T.
    """
    if lengths is None:
        return x.new_ones(x.shape[:2], dtype=torch.bool)
    return inside(x, check_lengths(lengths, x))


def _within(resets: Tensor | None, lengths: Tensor) -> Tensor | None:
    """Resets without those in the padding, which would touch a state that is already final."""
    return None if resets is None else resets & inside(resets, lengths)


def _check_width(x: Tensor, width: int) -> None:
    if x.shape[-1] != width:
        raise InputError(
            f"x must have {width} features (the network's input_size), received {x.shape[-1]} "
            f"in the shape {tuple(x.shape)}."
        )


def _check_resets(
    resets: Tensor | None, x: Tensor, batch_first: bool, batched: bool
) -> Tensor | None:
    if resets is None:
        return None
    steps, batch = x.shape[:2]
    shape = (steps,) if not batched else (batch, steps) if batch_first else (steps, batch)
    check_resets(resets, shape)
    resets = (
        resets.unsqueeze(1) if not batched else resets.transpose(0, 1) if batch_first else resets
    )
    return resets.to(x.device)
