"""The recurrences of the field: one family a file, each cell a few lines like its paper."""

from elman.cells.contract import Cell
from elman.cells.gru import GRU, GRUResetBefore
from elman.cells.lstm import LSTM, ProjectedLSTM
from elman.cells.maps import Affine, Blocks, Diagonal, Linear
from elman.cells.registry import CELLS, find, make
from elman.cells.simple import Elman, Perceptron
from elman.cells.transforms import layer_norm, recurrent_dropout, zoneout

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "Affine",
    "Blocks",
    "Cell",
    "Diagonal",
    "Elman",
    "GRUResetBefore",
    "Linear",
    "Perceptron",
    "ProjectedLSTM",
    "find",
    "layer_norm",
    "make",
    "recurrent_dropout",
    "zoneout",
]
