"""elman: recurrent neural networks on PyTorch.

Write one step of a recurrence as its equations; run it over time, stacked, in both directions,
over padded batches and with resets; train it by backpropagation through time; stream it.
"""

from elman import cells
from elman.cells import Affine, Cell, Diagonal, Linear
from elman.compiler.engine import EngineWarning, engine
from elman.errors import ElmanError, InputError
from elman.layers import GRU, LSTM, RNN, Recurrent

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Affine",
    "Cell",
    "Diagonal",
    "ElmanError",
    "EngineWarning",
    "InputError",
    "Linear",
    "Recurrent",
    "cells",
    "engine",
]
