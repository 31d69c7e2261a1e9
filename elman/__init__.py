"""elman: recurrent neural networks on PyTorch.

Write one step of a recurrence as its equations; run it over time, stacked, in both directions,
over padded batches and with resets; train it by backpropagation through time; stream it.
"""

import os as _os
from typing import TYPE_CHECKING
from typing import Any as _Any

# PyTorch's OpenMP threads wait by spinning for milliseconds. On a machine that is shared, a thread
# then spins on the very core that the one it waits for needs: a training step of a 2×256 LSTM runs
# at a sixth of its rate beside one other busy process. Spins that last as long as the Python
# between two steps of a stream cost nothing where the machine is free. This has an effect only
# where torch is not yet imported, and yields to the user's choice.
_os.environ.setdefault("GOMP_SPINCOUNT", "4000")

from elman.version import __version__ as __version__

if TYPE_CHECKING:
    from elman import cells as cells
    from elman import layers as layers
    from elman import learning as learning
    from elman import lens as lens
    from elman import tasks as tasks
    from elman.cells import Affine as Affine
    from elman.cells import Cell as Cell
    from elman.cells import Constant as Constant
    from elman.cells import Diagonal as Diagonal
    from elman.cells import Linear as Linear
    from elman.engines.choice import engine as engine
    from elman.engines.newton import Newton as Newton
    from elman.errors import ElmanError as ElmanError
    from elman.errors import EngineWarning as EngineWarning
    from elman.errors import InputError as InputError
    from elman.layers import AR as AR
    from elman.layers import CRF as CRF
    from elman.layers import GRU as GRU
    from elman.layers import LSTM as LSTM
    from elman.layers import NARX as NARX
    from elman.layers import RNN as RNN
    from elman.layers import Attention as Attention
    from elman.layers import Pooling as Pooling
    from elman.layers import Recurrent as Recurrent
    from elman.lens import gradient_flow as gradient_flow
    from elman.tasks import open_run as open_run

_PUBLIC = {
    "elman": ("cells", "layers", "learning", "lens", "tasks"),
    "elman.cells": ("Affine", "Cell", "Constant", "Diagonal", "Linear"),
    "elman.engines.choice": ("engine",),
    "elman.engines.newton": ("Newton",),
    "elman.errors": ("ElmanError", "EngineWarning", "InputError"),
    "elman.layers": (
        *("AR", "CRF", "GRU", "LSTM", "NARX", "RNN"),
        *("Attention", "Pooling", "Recurrent"),
    ),
    "elman.lens": ("gradient_flow",),
    "elman.tasks": ("open_run",),
}
"""What elman offers, by the module that has it: imported, and PyTorch with it, at its first use."""

_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = list(_MODULES)


def __getattr__(name: str) -> _Any:
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module 'elman' has no attribute {name!r}")
    module = _MODULES[name]
    if module == "elman":
        return import_module(f"elman.{name}")
    found = globals()[name] = getattr(import_module(module), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
