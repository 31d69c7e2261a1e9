"""Clipping and NAdam on a GPU: four kernels over all parameters at once.

PyTorch's own take a hundred, most of them for a number of each parameter, as long as its updates
are counted on the device. Here the first kernel sums the squares of all gradients in double
precision and the second scales the gradients; the third counts the update and the fourth takes it.
The kernels are compared with PyTorch's numbers before their first use; where there are none, or
they do not fit, PyTorch's run.
"""

from __future__ import annotations

import functools
import math
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, optim

from elman.compiler.cuda.kernels import Device, Function
from elman.compiler.cuda.target import CUDA, GPU
from elman.compiler.memory import pointer
from elman.errors import EngineWarning, callers_level, one_line

MOST = 48
"""Parameters of one launch: a launch takes no more than 4 KiB."""
THREADS, BLOCKS = 512, 2
"""Of a block; on a multiprocessor. See ``fused.cu``."""
_NAMES = ("squares", "scale", "count", "nadam")
_DEVICES = ("cuda",)


def fits(*lists: Sequence[Tensor]) -> bool:
    """Whether the kernels can read these tensors: dense, in single precision, on one GPU."""
    device = lists[0][0].device if lists and lists[0] else None
    return device is not None and all(
        t.device == device
        and device.type in _DEVICES
        and t.layout is torch.strided
        and t.dtype == torch.float32
        and t.is_contiguous()
        and not t.is_neg()
        for each in lists
        for t in each
    )


class Kernels:
    """The four kernels on one device."""

    def __init__(self, device: Device):
        source = (Path(__file__).parent / "fused.cu").read_text(encoding="utf-8")
        self.device, self.grid = device, BLOCKS * device.multiprocessors
        self._of: dict[str, Function] = {
            name: device.load(source, name, torch.float32) for name in _NAMES
        }

    def _launch(self, name: str, grid: int, parameters: bytes) -> None:
        threads, shared = (64, 0) if name == "count" else (THREADS, 8 * (THREADS // 32))
        with self.device.current():
            self._of[name].launch(grid, threads, shared, parameters, stream=self.device.stream())

    def clip(self, gradients: Sequence[Tensor], threshold: float | None) -> Tensor:
        """The norm of all gradients, which are scaled to ``threshold`` where they are longer."""
        parts = -(-len(gradients) // MOST)
        made = gradients[0].new_empty(parts * self.grid + 1, dtype=torch.float64)
        limit = math.inf if threshold is None else threshold
        for name in ("squares", "scale"):
            for k, some in enumerate(_chunks(gradients)):
                table = [n for g in some for n in (g.data_ptr(), g.numel())]
                table += [0] * (2 * MOST - len(table))
                at = made.data_ptr() + 8 * k * self.grid if name == "squares" else made.data_ptr()
                rest = (len(some), at, parts * self.grid, made[-1].data_ptr(), limit)
                self._launch(name, self.grid, struct.pack(f"{2 * MOST}q4qd", *table, *rest))
        return made[-1]

    def nadam(self, rows: Sequence[tuple[Any, ...]], rate: Tensor | float, how: Any) -> None:
        """Take an update; a row has p, its gradient, m, v, Π μ, the count and the decay."""
        (beta1, beta2), eps, momentum_decay = how
        factors = rows[0][0].new_empty(3 * len(rows))
        known, place = (0.0, pointer(rate)) if isinstance(rate, Tensor) else (rate, 0)
        for k, some in enumerate(_chunks(rows)):
            table: list[Any] = []
            for *tensors, decay in some:
                table += [*(t.data_ptr() for t in tensors), tensors[0].numel(), decay]
            table += [0] * (8 * MOST - len(table))
            given = struct.pack(
                "7qd" * MOST + "3q5d", *table, len(some), factors.data_ptr() + 12 * k * MOST,
                place, known, beta1, beta2, eps, momentum_decay,
            )  # fmt: skip
            self._launch("count", 1, given)
            self._launch("nadam", self.grid, given)


def _chunks(all_of_them: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(all_of_them), MOST):
        yield all_of_them[first : first + MOST]


_found: dict[torch.device, Kernels | None] = {}


def kernels(device: torch.device) -> Kernels | None:
    """The kernels of a device, made and compared with PyTorch's numbers when first asked for."""
    if device not in _found:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return None  # no time to load them
        _found[device] = _made(device)
    return _found[device]


def _made(device: torch.device) -> Kernels | None:
    why = CUDA.missing() if device.type == "cuda" else None
    if why is None:
        try:
            made = Kernels(_machine(device))
            why = _differs(made, device)
            if why is None:
                return made
        except Exception as error:  # whatever the compiler or the driver says
            why = one_line(error)
    warnings.warn(
        f"Clipping and NAdam run in PyTorch's own kernels, which is slower: {why}.",
        EngineWarning,
        stacklevel=callers_level(),
    )
    return None


@functools.cache
def _machine(device: torch.device) -> Device:
    return GPU(torch.cuda.current_device() if device.index is None else device.index)


@torch.no_grad()
def _differs(made: Kernels, device: torch.device) -> str | None:
    """What the kernels compute otherwise than PyTorch's NAdam, if anything."""
    draw = torch.Generator().manual_seed(0)
    first = [torch.randn(n, generator=draw) for n in (3, 700, 5000)]
    theirs = [p.to(device, copy=True).requires_grad_() for p in first]
    optimizer = optim.NAdam(theirs, lr=0.01, weight_decay=0.1, foreach=False)
    rows = [
        tuple(t.to(device) for t in (p.clone(), p, p * 0, p * 0, torch.ones(()), torch.zeros(())))
        for p in first
    ]
    how = (0.9, 0.999), 1e-8, 4e-3
    rate = torch.tensor(0.01, device=device)
    for threshold in (None, 0.5):
        gradients = [torch.randn(len(p), generator=draw).to(device) for p in first]
        norm = torch.cat([g.double() for g in gradients]).norm()
        for p, g in zip(theirs, gradients, strict=True):
            p.grad = g if threshold is None else g * (threshold / norm).float()
        optimizer.step()
        ours = [g.clone() for g in gradients]
        if not torch.allclose(made.clip(ours, threshold), norm, rtol=1e-9):
            return "the norms differ"
        given = [(p, g, *rest, 0.1) for (p, _, *rest), g in zip(rows, ours, strict=True)]
        made.nadam(given, rate if threshold is None else 0.01, how)
    for row, p in zip(rows, theirs, strict=True):
        if not torch.allclose(row[0], p, rtol=1e-4, atol=1e-6):
            return "the updates differ"
    return None


class NAdam(optim.NAdam):
    """PyTorch's NAdam (Dozat, 2016): the same numbers and the same state, on a GPU in two kernels.

    That is where its updates are counted on the device (``capturable``), as for a CUDA graph.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take an update."""
        made = None if closure is not None else self._kernels()
        if made is None:
            return super().step(closure)
        rows: list[tuple[Any, ...]] = []
        for group in self.param_groups:
            lists: list[list[Tensor]] = [[] for _ in range(6)]
            self._init_group(group, *lists)
            if lists[0] and not fits(*lists):
                return super().step()
            rows += [(*row, group["weight_decay"]) for row in zip(*lists, strict=True)]
        group = self.param_groups[0]
        if rows:
            made.nadam(rows, group["lr"], [group[name] for name in _SHARED])
        return None

    def _kernels(self) -> Kernels | None:
        """The kernels, where all groups ask for what they compute."""
        first = self.param_groups[0]
        for group in self.param_groups:
            other = [
                n for n in ("lr", *_SHARED) if group[n] is not first[n] and group[n] != first[n]
            ]
            special = ("maximize", "differentiable", "decoupled_weight_decay")
            if other or not group["capturable"] or any(group[name] for name in special):
                return None
        some = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not some or not fits(some, [p.grad for p in some if p.grad is not None]):
            return None
        if isinstance(first["lr"], Tensor) and not fits(some, [first["lr"]]):
            return None
        return kernels(some[0].device)


_SHARED = ("betas", "eps", "momentum_decay")
