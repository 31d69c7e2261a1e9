"""Torch modules: any cell over time, the drop-ins for ``torch.nn``, autoregression."""

from elman.layers.delay import AR, NARX
from elman.layers.recurrent import Recurrent
from elman.layers.torch_nn import GRU, LSTM, RNN

__all__ = ["AR", "GRU", "LSTM", "NARX", "RNN", "Recurrent"]
