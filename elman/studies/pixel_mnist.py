"""Digits read pixel by pixel (Le, Jaitly & Hinton, 2015)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from elman.cells import Cell
from elman.data.images import mnist
from elman.errors import InputError
from elman.layers import Pyramid
from elman.studies.study import Batch, Learning, LearningSettings, Reader, make_cell
from elman.training.settings import option

HELD_OUT = 2000  # of the 60,000 images, for the checks


@dataclass
class PixelSettings(LearningSettings):
    """The settings of reading digits pixel by pixel."""

    layers: int = option(5, "Layers.", least=1, below=10_000)
    hidden_sizes: list[int] = option(
        [], "Units layer by layer, in place of the two.", least=1, below=2**31
    )
    strides: list[int] = option(
        [4, 1, 7], "After layer 1, 2, …: only each so-many-th step goes on.", least=1
    )
    dropout: float = option(0.0, "Probability to drop an output of a layer.", least=0, below=1)
    plain: bool = option(False, "Layers alone: no normalisation, gates, links, strides, dropout.")
    permuted: bool = option(False, "The pixels in a random order, the same for all images.")


class PixelMNIST(Learning):
    """Handwritten digits, a pixel a step: which digit was it?

    28 × 28 grey values are read one by one, row by row or, ``permuted``, in a random order that is
    the same for all images: all 784 of them, none left out. The mean of the last layer's outputs
    is classified. 58,000 images are learned from, 2,000 held out for the checks; the figure is the
    share right of the 10,000 test images.

    The default is a :class:`Pyramid` of linear recurrent units. Its strides, 4 and 7, make 28
    steps of the 784: in the usual order one for each row.
    """

    name = "pixel-mnist"
    title = "handwritten digits, read pixel by pixel"
    source = "Le, Jaitly & Hinton, 2015"
    inputs, outputs = 1, 10
    measure = "share right"
    goal, reach = 1.0, 0.99  # 0.95 in a random order
    higher = True
    Settings = PixelSettings.with_defaults(
        cell="lru", memory=10, hidden=64, length=784, updates=20000, batch=32,
        learning_rate=3e-3, every=1000, seeds=1,
    )  # fmt: skip
    settings: PixelSettings

    def __init__(self, settings: PixelSettings):
        super().__init__(settings)
        if settings.length > 784:
            raise InputError(f"an image has 784 pixels, received `length` {settings.length}.")
        left = settings.length // prod([] if settings.plain else settings.strides)
        if left < 1:
            raise InputError(
                f"strides of {settings.strides} leave nothing of {settings.length} pixels: "
                "lower `strides` or raise `length`."
            )
        order = torch.arange(784)
        if settings.permuted:
            self.reach = 0.95
            order = torch.randperm(784, generator=torch.Generator().manual_seed(92))
        self.train, self.tested = (
            (images.flatten(1)[:, order], labels)
            for images, labels in map(mnist, ("train", "t10k"))
        )

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """Images to learn from, drawn with replacement."""
        images, labels = self.train
        drawn = torch.randint(len(images) - HELD_OUT, (count,), generator=draw)
        return self._batch(images[drawn], labels[drawn])

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The mean cross-entropy of the digit, in nats."""
        return cross_entropy(self._classes(network, batch), batch.target)

    def make(self) -> nn.Module:
        """A new network."""
        its = self.settings
        if its.plain:
            return Reader(make_cell(its, self.inputs), self.outputs, its.layers)
        sizes = its.hidden_sizes or [its.hidden] * its.layers

        def cell(inputs: int, hidden: int) -> Cell:
            return make_cell(replace(its, hidden=hidden), inputs)

        return Pyramid(cell, self.inputs, self.outputs, sizes, its.strides, its.dropout)

    def widths(self) -> str:
        """See :meth:`Learning.widths`."""
        its = self.settings
        sizes = its.hidden_sizes or [its.hidden] * its.layers
        order = "permuted" if its.permuted else "in order"
        return f"{', '.join(map(str, sizes))} units{', plain' if its.plain else ''}, {order}"

    def check(self, network: nn.Module, draw: torch.Generator) -> float:
        """The share right of the images held out."""
        return self._right(network, *(part[-HELD_OUT:] for part in self.train))

    def figure(self, network: nn.Module, draw: torch.Generator) -> float:
        """The share right of the test images."""
        return self._right(network, *self.tested)

    def _batch(self, images: Tensor, labels: Tensor) -> Batch:
        pixels = images[:, : self.settings.length].to(torch.get_default_dtype()) / 255
        return Batch((pixels.t().unsqueeze(-1) - 0.1307) / 0.3081, labels)

    def _classes(self, network: nn.Module, batch: Batch) -> Tensor:
        if self.settings.plain:
            return network(batch).mean(0)
        return network(batch.x.to(next(network.parameters())))

    def _right(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        right = 0
        network.eval()
        for some, their in zip(images.split(250), labels.split(250), strict=True):
            classes = self._classes(network, self._batch(some, their)).argmax(-1)
            right += int((classes == their).sum())
        network.train()
        return right / len(labels)
