"""A cell's programs for this processor: C++ that is emitted, built, kept and called.

The loop over time, the products and the threads are in the headers of ``runtime/``, into which
emitted code plugs.
"""

from __future__ import annotations

import warnings

import torch

from elman.cells.contract import Cell
from elman.compiler import cache
from elman.compiler.compiled import compile_cell
from elman.compiler.cpu import build, products, scan, target
from elman.compiler.cpu.emit import emit
from elman.compiler.record import Unsupported
from elman.errors import InputError

PROVIDED = (products, scan, target)
"""What computes elman's operators and loops on this processor, from when it is imported."""


def source(cell: Cell) -> str:
    """The C++ that ``cell`` is compiled to by the native engine.

    Raises:
        InputError: the native engine has no kernel for it.
    """
    like = next(cell.parameters(), None)
    real = torch.float32 if like is None else like.dtype
    try:
        if real not in build.REALS:
            raise Unsupported(f"it computes in float32 and float64, not in {real}")
        return emit(compile_cell(cell, real).programs)
    except Unsupported as why:
        raise InputError(
            f"the native engine cannot compile {type(cell).__name__}: {why}."
        ) from None


def status() -> dict[str, str]:
    """What the native engine finds on this machine: compiler, instructions, threads, cache.

    ``compiler`` and ``cache`` say in one sentence what is wrong with them and what to do.
    """
    found = {
        "threads": str(torch.get_num_threads()),
        "cache": cache.cache_trouble() or str(cache.cache_folder()),
    }
    try:
        found["compiler"] = build.version()
        found["openmp"] = build.openmp()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the cache, which is told already
            width = build.runtime(torch.float32).elman_vector_bytes()
        found["instructions"] = f"vectors of {8 * width} bits"
        found["engine"] = "native"
    except build.BuildError as why:
        found["compiler"] = f"{why}."
        found["engine"] = "torch and reference"
    return found
