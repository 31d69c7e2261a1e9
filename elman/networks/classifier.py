"""A network that tells one thing of a whole sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from elman.layers.dropout import between_layers
from elman.layers.pooling import KINDS, Pooling
from elman.networks.words import WordSettings
from elman.training.network import NetworkSettings, make_recurrent
from elman.training.settings import option


@dataclass
class ClassifierSettings(NetworkSettings, WordSettings):
    """What a classifier's network can be told."""

    bidirectional: bool = option(True, "Read in both directions.")
    pooling: str = option("max", "How outputs become one vector.", choices=KINDS)


class Standardized(nn.Module):
    """(x_t − μ) / σ, μ and σ those of each feature over what is learned from.

    Args:
        mean, scale: μ and σ (F).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor):
        super().__init__()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.output_size = len(mean)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, F) to the same."""
        return (x.to(self.mean) - self.mean) / self.scale


class Classifier(nn.Module):
    """V pool(h_1 … h_T) + b, h the outputs of a recurrent network: scores of classes, or a number.

    Args:
        reader: from what a batch holds to inputs (T, B, ``output_size``).
        outputs: how many classes; 1 for a number.
        settings: of the network.
    """

    def __init__(self, reader: Any, outputs: int, settings: ClassifierSettings):
        super().__init__()
        self.reader, self.dropout = reader, settings.dropout
        self.recurrent = make_recurrent(settings, reader.output_size, settings.bidirectional)
        size = self.recurrent.output_size
        self.pooling = Pooling(settings.pooling, size, bidirectional=settings.bidirectional)
        self.output = nn.Linear(size, outputs)

    def forward(self, inputs: Any, lengths: Tensor) -> Tensor:
        """A batch of sequences to scores (B, C)."""
        y, _ = self.recurrent(self.reader(inputs), lengths=lengths)
        pooled = self.pooling(y, lengths)
        return self.output(between_layers(pooled, self.dropout, False, self.training))
