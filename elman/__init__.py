"""elman: recurrent neural networks on PyTorch.

Write one step of a recurrence as its equations; run it over time, stacked, in both directions,
over padded batches and with resets; train it by backpropagation through time; stream it.
"""

import os as _os

# PyTorch's OpenMP threads wait by spinning for milliseconds. On a machine that is shared, a thread
# then spins on the very core that the one it waits for needs: a training step of a 2×256 LSTM runs
# at a sixth of its rate beside one other busy process. Spins that last as long as the Python
# between two steps of a stream cost nothing where the machine is free. This has an effect only
# where torch is not yet imported, and yields to the user's choice.
_os.environ.setdefault("GOMP_SPINCOUNT", "4000")

from elman.cli.entry import importing as _importing

with _importing():
    from elman import cells
    from elman.cells import Affine, Cell, Constant, Diagonal, Linear
    from elman.compiler.engine import EngineWarning, engine
    from elman.errors import ElmanError, InputError
    from elman.layers import AR, GRU, LSTM, NARX, RNN, Recurrent
    from elman.lens import gradient_flow

__version__ = "0.1.0"

__all__ = [
    "AR",
    "GRU",
    "LSTM",
    "NARX",
    "RNN",
    "Affine",
    "Cell",
    "Constant",
    "Diagonal",
    "ElmanError",
    "EngineWarning",
    "InputError",
    "Linear",
    "Recurrent",
    "cells",
    "engine",
    "gradient_flow",
]
