"""The recurrent network of a job, as its settings describe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from elman.cells import Cell, registry
from elman.layers import Recurrent
from elman.layers.links import LINKS
from elman.training.settings import Settings, option


@dataclass
class NetworkSettings(Settings):
    """What every job's recurrent network can be told."""

    panel: ClassVar[str] = "Network"

    cell: str = option(
        "lstm", "A name that `elman cells` lists, such as gru, or path/to/file.py:ClassName."
    )
    hidden: int = option(256, "Units of each layer.", least=1, below=2**31)
    layers: int = option(1, "Layers.", least=1, below=10_000)
    hidden_sizes: list[int] = option(
        [], "Units layer by layer, in place of the two, such as 256,128.", least=1, below=2**31
    )
    biases: int = option(2, "Biases of a map: 2 as in torch.nn, 1 or 0.", least=0, below=3)
    dropout: float = option(0.0, "Dropout between layers and around them.", least=0, below=1)
    variational: bool = option(False, "Drop the same units at every step of a window.")
    weight_drop: float = option(
        0.0, "Dropout on the matrices that multiply a state, as AWD-LSTM has it.", least=0, below=1
    )
    skip: str = option("none", "Links between layers.", choices=("none", *LINKS[1:]))
    forget_bias: float | None = option(
        None,
        "What the bias of forget gates starts at.",
        above=-1e31,
        below=1e31,
        unset="1 in cells that have one",
    )
    learn_initial_state: bool = option(False, "Learn the state that sequences start from.")


def has_forget_gate(cell: Cell) -> bool:
    """Whether the cell has a gate that keeps its memory, a block called f, with a bias."""
    return any("f" in cell.blocks_of(n) for n, _ in cell.named_parameters() if n[:5] == "bias_")


def make_recurrent(
    settings: NetworkSettings, input_size: int, bidirectional: bool = False
) -> Recurrent:
    """The network of these settings, for inputs (T, B, input_size).

    Where ``forget_bias`` is not set, a cell with a forget gate starts with its bias at 1, so that
    it remembers before it has learned to (Gers et al., 2000; Jozefowicz et al., 2015).
    """
    sizes = settings.hidden_sizes or [settings.hidden] * settings.layers
    cell = registry.make(settings.cell, input_size, sizes[0], biases=settings.biases)
    forget_bias = settings.forget_bias
    if forget_bias is None and has_forget_gate(cell):
        forget_bias = 1.0
    return Recurrent(
        cell,
        bidirectional=bidirectional,
        hidden_sizes=sizes,
        dropout=settings.dropout,
        variational=settings.variational,
        weight_drop=settings.weight_drop,
        skip=None if settings.skip == "none" else settings.skip,
        forget_bias=forget_bias,
        learn_initial_state=settings.learn_initial_state,
    )
