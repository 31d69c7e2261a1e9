"""Torch modules: any cell over time, the drop-ins for ``torch.nn``, and what is built of them."""

from elman.layers.delay import AR, NARX
from elman.layers.echo_state import EchoState
from elman.layers.recurrent import Recurrent
from elman.layers.strided import Pyramid, StridedBlock
from elman.layers.torch_nn import GRU, LSTM, RNN

__all__ = ["AR", "GRU", "LSTM", "NARX", "RNN", "EchoState", "Pyramid", "Recurrent", "StridedBlock"]
