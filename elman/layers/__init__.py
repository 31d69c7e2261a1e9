"""Torch modules: any cell over time, the drop-ins for ``torch.nn``, and what is built of them."""

from elman.layers.attention import Attention
from elman.layers.crf import CRF
from elman.layers.delay import AR, NARX
from elman.layers.echo_state import EchoState
from elman.layers.pooling import Pooling
from elman.layers.recurrent import Recurrent
from elman.layers.strided import Pyramid, StridedBlock
from elman.layers.torch_nn import GRU, LSTM, RNN

__all__ = [
    "AR", "CRF", "GRU", "LSTM", "NARX", "RNN", "Attention", "EchoState", "Pooling", "Pyramid",
    "Recurrent", "StridedBlock",
]  # fmt: skip
