"""The recurrences of the field: one family a file, each cell a few lines like its paper."""

from elman.cells.clockwork import Clockwork
from elman.cells.constants import Constant
from elman.cells.contract import Cell
from elman.cells.delay import NARX, TDNN
from elman.cells.gru import GRU, MGU, GRUResetBefore
from elman.cells.highway import RecurrentHighway
from elman.cells.linear import LRU, QRNN, SRU, LinearRecurrence, MinGRU, MinLSTM, PeepholeSRU
from elman.cells.lstm import (
    LSTM,
    CoupledLSTM,
    LSTMWithoutForgetGate,
    PeepholeLSTM,
    PreviousPeepholeLSTM,
    ProjectedLSTM,
)
from elman.cells.maps import Affine, Blocks, Diagonal, Linear
from elman.cells.multiplicative import MultiplicativeLSTM, MultiplicativeRNN
from elman.cells.registry import CELLS, find, make
from elman.cells.simple import (
    IRNN,
    Elman,
    IdentityRNN,
    IndRNN,
    Jordan,
    Perceptron,
    ResidualRNN,
)
from elman.cells.transforms import LayerNormLSTM, layer_norm, recurrent_dropout, zoneout

__all__ = [
    "CELLS",
    "GRU",
    "IRNN",
    "LRU",
    "LSTM",
    "MGU",
    "NARX",
    "QRNN",
    "SRU",
    "TDNN",
    "Affine",
    "Blocks",
    "Cell",
    "Clockwork",
    "Constant",
    "CoupledLSTM",
    "Diagonal",
    "Elman",
    "GRUResetBefore",
    "IdentityRNN",
    "IndRNN",
    "Jordan",
    "LSTMWithoutForgetGate",
    "LayerNormLSTM",
    "Linear",
    "LinearRecurrence",
    "MinGRU",
    "MinLSTM",
    "MultiplicativeLSTM",
    "MultiplicativeRNN",
    "PeepholeLSTM",
    "PeepholeSRU",
    "Perceptron",
    "PreviousPeepholeLSTM",
    "ProjectedLSTM",
    "RecurrentHighway",
    "ResidualRNN",
    "find",
    "layer_norm",
    "make",
    "recurrent_dropout",
    "zoneout",
]
