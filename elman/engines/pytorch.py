"""The ``torch`` engine: PyTorch's own fused kernels (oneDNN, cuDNN) for the cells it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.backends.cudnn.rnn import get_cudnn_mode
from torch.nn import Parameter
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from elman.cells.contract import Cell
from elman.cells.gru import GRU
from elman.cells.lstm import LSTM, ProjectedLSTM
from elman.cells.simple import Elman
from elman.cells.step_checks import under_autocast
from elman.compiler.modes import is_recorded, is_transformed
from elman.engines.call import Call, Result

_ELMAN: dict[str, Any] = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}


_STACKING = ("cuda",)
"""Devices whose kernels overlap the layers of a stack."""


def knows(cell: Cell) -> bool:
    """Whether PyTorch has a kernel for exactly this cell; a subclass is another cell."""
    return _kernel(cell) is not None


def unsupported(cell: Cell, call: Call) -> str | None:
    """Why PyTorch's kernels cannot take this call, or None where they can."""
    if not knows(cell):
        return "PyTorch has no fused kernel for this cell"
    if is_transformed():
        return "PyTorch's fused kernels do not run inside torch.func or in forward mode"
    if call.resets is not None:
        return "PyTorch's fused kernels cannot reset the state inside a sequence"
    if call.every_state and len(cell.state) > 1:
        return "PyTorch's fused kernels do not give the cell state of every step"
    if call.x.shape[0] == 0 or (call.x.shape[1] == 0 and call.lengths is not None):
        return "PyTorch's fused kernels take no empty sequence and no empty padded batch"
    return None


def run(cell: Cell, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run one of PyTorch's own cells; the reverse direction runs on the reversed sequences."""
    if not under_autocast(call.x.device):
        call.check_types(next(iter(weights.values())).dtype)
    lengths = call.lengths
    x = _reverse(call.x, lengths) if call.reverse else call.x
    state = tuple(s.unsqueeze(0).contiguous() for s in call.state)
    y, final = _fused(cell, _flat(weights), x, state, lengths)
    if call.reverse:
        y = _reverse(y, lengths)
    last = tuple(f.squeeze(0) for f in final)
    if not call.every_state:
        return Result(y, last)
    if lengths is None:
        return Result(y, last, (y,))
    # Past a sequence's end, its output is zero but its state stays as it is.
    inside = (torch.arange(x.shape[0], device=x.device).unsqueeze(1) < lengths).unsqueeze(-1)
    return Result(y, last, (torch.where(inside, y, call.state[0] if call.reverse else last[0]),))


def is_faster(x: Tensor) -> bool:
    """Whether PyTorch's kernels run its own cells on x (T, B, M) faster than compiled ones do.

    cuDNN takes a sequence in one kernel in float16 alone. Of float32 and bfloat16 it begins every
    step anew: measured, 2.8 to 5 times the engine ``cuda``'s time on 16 rows of 1,024 steps, and
    1.8 to 2.3 times on 32 rows of 35 (benchmarks/gpu.md). Fewer steps and more rows were not
    measured, and are left to it.
    """
    if not x.is_cuda or x.dtype != torch.float32:
        return True
    if torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.float16:
        return True
    steps, batch = x.shape[:2]
    return steps < 32 or batch > 64


def takes_stack(cells: Sequence[Cell], x: Tensor) -> bool:
    """Whether one call of PyTorch's kernels runs these cells, as layers of one network."""
    first = cells[0]
    return (
        x.device.type in _STACKING
        and x.numel() > 0
        and all(
            type(cell) is type(first)
            and _kernel(cell) is _kernel(first) is not None
            and (cell.state_sizes, cell.biases) == (first.state_sizes, first.biases)
            for cell in cells
        )
        and not (torch.compiler.is_compiling() or is_recorded() or is_transformed())
    )


def run_stack(
    cells: Sequence[Cell],
    weights: Sequence[Mapping[str, Tensor]],
    x: Tensor,
    states: Sequence[tuple[Tensor, ...]],
    lengths: Tensor | None,
    bidirectional: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Run all layers, in both directions, in one call, where :func:`takes_stack` says so.

    Args:
        cells, weights, states: by layer, in each layer by direction; a state is (B, size).
        x: the input (T, B, M).
        lengths: as in :class:`Call`.
        bidirectional: whether every layer has two of the cells.

    Returns:
        The last layer's outputs (T, B, S · directions), and the last states (cells, B, size).
    """
    if under_autocast(x.device):
        states = [tuple(s.to(weights[0]["weight_hh"].dtype) for s in each) for each in states]
    flat = [tensor for of_one in weights for tensor in _flat(of_one)]
    here = flat[0].untyped_storage().data_ptr()
    if x.is_cuda and any(weight.untyped_storage().data_ptr() != here for weight in flat):
        _lay_together(cells, flat, bidirectional)
    together = tuple(torch.stack(column) for column in zip(*states, strict=True))
    depth = len(cells) // (2 if bidirectional else 1)
    return _fused(cells[0], flat, x, together, lengths, depth, bidirectional)


def _fused(
    cell: Cell,
    flat: list[Tensor],
    x: Tensor,
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    layers: int = 1,
    bidirectional: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Outputs and last states of PyTorch's kernel for ``cell``; a state is (cells, B, size)."""
    hx: Any = state if len(state) > 1 else state[0]
    # cuDNN keeps what its backward reads only where it is told that it trains.
    train = torch.is_grad_enabled() or is_recorded()
    kernel, biased = _kernel(cell), cell.biases > 0
    if lengths is None:
        y, *final = kernel(x, hx, flat, biased, layers, 0.0, train, bidirectional, False)
        return y, final
    # PyTorch packs no empty sequence: run one step of it, and keep none of its results.
    packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    hx = tuple(s[:, order] for s in state) if len(state) > 1 else state[0][:, order]
    data, *final = kernel(
        packed.data, packed.batch_sizes, hx, flat, biased, layers, 0.0, train, bidirectional
    )
    y, _ = pad_packed_sequence(packed._replace(data=data), total_length=x.shape[0])
    some = (lengths > 0).unsqueeze(-1)
    final = [torch.where(some, f[:, back], s) for f, s in zip(final, state, strict=True)]
    return torch.where(some, y, 0), final


@torch.inference_mode(False)
@torch.no_grad()
def _lay_together(cells: Sequence[Cell], flat: list[Tensor], bidirectional: bool) -> None:
    """Move weights into one piece of memory, as cuDNN reads them: it would copy them every time.

    They stay the parameters that they are, each a view of that piece. What gives them memory of
    their own again, such as ``.to()``, is seen at the next call. Weights that are computed, as
    under weight drop, are left to cuDNN.
    """
    if not all(type(weight) is Parameter and weight.is_cuda for weight in flat) or not (
        torch.backends.cudnn.is_acceptable(flat[0])
        and len({weight.data_ptr() for weight in flat}) == len(flat)
        and not torch.cuda.is_current_stream_capturing()  # its graph holds the old addresses
    ):
        return
    first = cells[0]
    torch._cudnn_rnn_flatten_weight(
        flat, len(flat) // len(cells), first.input_size, _mode(first), first.hidden_size,
        first.state_sizes[0] if isinstance(first, ProjectedLSTM) else 0,
        len(cells) // (2 if bidirectional else 1), False, bidirectional,
    )  # fmt: skip


def _mode(cell: Cell) -> int:
    """cuDNN's number of a kind of cell."""
    if isinstance(cell, Elman):
        return get_cudnn_mode(f"RNN_{cell.nonlinearity.upper()}")
    return get_cudnn_mode("GRU" if isinstance(cell, GRU) else "LSTM")


def _kernel(cell: Cell) -> Any:
    if type(cell) in (LSTM, ProjectedLSTM):
        return torch.lstm
    if type(cell) is GRU:
        return torch.gru
    return _ELMAN.get(cell.nonlinearity) if type(cell) is Elman else None


def _flat(weights: Mapping[str, Tensor]) -> list[Tensor]:
    """The weights in PyTorch's order, with a second bias of zeros where the cell has one."""
    flat = [weights["weight_ih"], weights["weight_hh"]]
    if "bias_ih" in weights:
        bias = weights["bias_ih"]
        flat += [bias, weights.get("bias_hh", torch.zeros_like(bias))]
    if "weight_hr" in weights:
        flat.append(weights["weight_hr"])
    return flat


def _reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence (T, B, …) read from its own end; the padding stays where it is."""
    if lengths is None:
        return x.flip(0)
    t = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    index = torch.where(t < lengths, lengths - 1 - t, t)
    return x.gather(0, index.unsqueeze(-1).expand_as(x))
