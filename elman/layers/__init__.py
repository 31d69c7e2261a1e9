"""Torch modules: any cell over time, and the drop-ins for ``torch.nn``."""

from elman.layers.recurrent import Recurrent
from elman.layers.torch_nn import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]
