"""NVIDIA's GPUs as the target of tensors that lie on them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from elman.compiler import affine, targets
from elman.compiler.cuda import build
from elman.compiler.cuda.kernels import Kernel
from elman.compiler.cuda.launch import Function, Module
from elman.compiler.schedule import Program

REALS = {torch.float32: "float", torch.float64: "double"}
_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


class GPU:
    """A GPU that runs kernels."""

    def __init__(self, index: int):
        properties: Any = torch.cuda.get_device_properties(index)
        self.index = index
        self.multiprocessors: int = properties.multi_processor_count
        self.shared: int = properties.shared_memory_per_block_optin
        # More than eight need not fit on every GPU; on Hopper and its successors sixteen do.
        self.cluster = 16 if properties.major >= 9 else 1
        self.architecture = build.architecture(properties.major, properties.minor)

    def load(self, source: str, name: str, real: torch.dtype) -> Function:
        """A kernel, compiled or taken from the cache."""
        built = build.compile(source, self.architecture, [f"-DELMAN_REAL={REALS[real]}"])
        with self.current():  # a module belongs to the device that is current
            return Module(built.cubin).function(name)

    def current(self) -> torch.cuda.device:
        """A block in which it is the one that launches are for."""
        return torch.cuda.device(self.index)

    def stream(self) -> int:
        """The stream that PyTorch's operations are in."""
        stream: int = torch.cuda.current_stream(self.index).cuda_stream
        return stream


@functools.cache
def _gpu(index: int) -> GPU:
    return GPU(index)


def gpu_of(tensor: Tensor) -> GPU:
    """The GPU that a tensor lies on."""
    return _gpu(tensor.device.index)


def _build(programs: Mapping[str, Program], real: torch.dtype) -> dict[str, Kernel]:
    return {name: Kernel(name, program, real, gpu_of) for name, program in programs.items()}


def missing() -> str | None:
    """Why there can be no kernels here; None where they can be."""
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU"
    if torch.version.hip is not None:
        return "its kernels are for NVIDIA's GPUs"
    if torch.cuda.get_device_capability() < (8, 0):
        return "its kernels need a GPU of compute capability 8.0 or later"
    try:
        build.version()
    except targets.BuildError as why:
        return str(why)
    return None


def product(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    *,
    out: Tensor | None = None,
    operand: str = "",
) -> Tensor:
    """a b (+ bias), by PyTorch, added to ``out`` where it is given; sums are in single precision.

    ``operand`` is what a and b are rounded to: see :class:`elman.compiler.kernel.Shape`.
    """
    low = _LOW.get(operand)
    if low is None and a.dtype == b.dtype and a.dtype in REALS:
        if out is not None:
            return out.addmm_(a, b)
        return a @ b if bias is None else torch.addmm(bias, a, b)
    low = low or (b.dtype if a.dtype in REALS else a.dtype)
    made = torch.mm(a.to(low), b.to(low), out_dtype=torch.float32)
    if bias is not None:
        made += bias
    return made if out is None else out.add_(made)


def _column_sums(rows: Tensor) -> Tensor:
    return rows.sum(0)


def _affine(bias: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
    return product(x, weight, bias)


def _affine_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]
) -> list[Tensor]:
    out = [gradient.sum(0)] if wanted[0] else []
    gradient = gradient.to(x.dtype)
    if wanted[1]:
        out.append(product(gradient, weight.t()))
    if wanted[2]:
        out.append(product(gradient.t(), x))
    return out


affine.provide("cuda", _affine, _affine_backward)
CUDA = targets.Target("cuda", tuple(REALS), _build, product, _column_sums, missing)
targets.provide("cuda", CUDA)
