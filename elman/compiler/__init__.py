"""A cell to something that runs: the engines, and the choice among them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elman.cells.contract import Cell


def source(cell: Cell) -> str:
    """The C++ that ``cell`` is compiled to by the native engine.

    Raises:
        InputError: the native engine has no kernel for it.
    """
    from elman.compiler import native

    return native.source(cell)


def status() -> dict[str, str]:
    """What the native engine finds on this machine: compiler, instructions, threads, cache.

    ``compiler`` and ``cache`` say in one sentence what is wrong with them and what to do.
    """
    import torch

    from elman.compiler import build, cache

    found = {
        "threads": str(torch.get_num_threads()),
        "cache": cache.cache_trouble() or str(cache.cache_folder()),
    }
    try:
        found["compiler"] = build.version()
        found["openmp"] = build.openmp()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the cache, which is told already
            width = build.engine(torch.float32).elman_vector_bytes()
        found["instructions"] = f"vectors of {8 * width} bits"
        found["engine"] = "native"
    except build.BuildError as why:
        found["compiler"] = f"{why}."
        found["engine"] = "torch and reference"
    return found
