"""The ``torch`` engine: PyTorch's own fused kernels (oneDNN, cuDNN) for the cells it knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from elman.cells.contract import Cell
from elman.cells.gru import GRU
from elman.cells.lstm import LSTM, ProjectedLSTM
from elman.cells.simple import Elman
from elman.cells.step_checks import under_autocast
from elman.compiler.modes import is_recorded, is_transformed
from elman.engines.call import Call, Result

_ELMAN: dict[str, Any] = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}


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
    state: Any = tuple(s.unsqueeze(0).contiguous() for s in call.state)
    hx = state if len(state) > 1 else state[0]
    # cuDNN keeps what its backward reads only where it is told that it trains.
    train = torch.is_grad_enabled() or is_recorded()
    kernel, flat, biased = _kernel(cell), _flat(weights), cell.biases > 0
    if lengths is None:
        y, *final = kernel(x, hx, flat, biased, 1, 0.0, train, False, False)
    else:
        # PyTorch packs no empty sequence: run one step of it, and keep none of its results.
        packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), enforce_sorted=False)
        order, back = packed.sorted_indices, packed.unsorted_indices
        hx = tuple(s[:, order] for s in state) if len(state) > 1 else state[0][:, order]
        data, *final = kernel(
            packed.data, packed.batch_sizes, hx, flat, biased, 1, 0.0, train, False
        )
        y, _ = pad_packed_sequence(packed._replace(data=data), total_length=x.shape[0])
        some = (lengths > 0).unsqueeze(-1)
        final = [torch.where(some, f[:, back], s) for f, s in zip(final, state, strict=True)]
        y = torch.where(some, y, 0)
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
