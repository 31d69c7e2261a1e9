"""The ``cuda`` engine: any cell, compiled into kernels for the GPU that its tensors lie on."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from elman.cells.contract import Cell
from elman.compiler import cuda as _target  # noqa: F401 - which provides itself
from elman.engines import native
from elman.engines.call import Call, Result


def unsupported(cell: Cell, call: Call) -> str | None:
    """Why this engine cannot take this call, or None where it can."""
    if call.x.device.type != "cuda":
        return f"the cuda engine runs on NVIDIA GPUs, not on {call.x.device}"
    return native.refusal(cell, call)


def run(cell: Cell, weights: Mapping[str, Tensor], call: Call) -> Result:
    """Run ``cell`` over time in kernels; what depends on the input alone runs before them."""
    return native.run(cell, weights, call)
