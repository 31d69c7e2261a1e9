"""What the machine can do at best: the rate of one product, by whichever library is fastest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from elman.bench.timing import interleaved


def product_rate(rows: int, depth: int, columns: int, seconds: float = 0.2) -> float:
    """The best rate of a product (rows, depth) × (depth, columns), in GFLOP/s, float32.

    Of PyTorch's own (MKL on most x86 processors) and oneDNN's, with PyTorch's threads: on AMD
    processors MKL reaches half of oneDNN's rate.
    """
    x, weight = torch.randn(rows, depth), torch.randn(columns, depth)
    calls: list[Callable[[], Tensor]] = [lambda: x @ weight.t()]
    if torch.backends.mkldnn.is_available():
        linear = torch.ops.mkldnn._linear_pointwise
        calls.append(lambda: linear(x, weight, None, "none", [], ""))
    with torch.no_grad():
        best = min(timing.seconds for timing in interleaved(calls, seconds))
    return 2 * rows * depth * columns / best / 1e9
