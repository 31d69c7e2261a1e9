"""Digits read pixel by pixel (Le, Jaitly & Hinton, 2015)."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn, sigmoid
from torch.nn.functional import cross_entropy

from elman.cells import Cell
from elman.errors import ElmanError, InputError
from elman.layers import Recurrent
from elman.powers.power import Batch, Learning, LearningSettings, Reader, make_cell
from elman.training.settings import option

HELD_OUT = 2000  # of the 60,000 images, for the checks


class Block(nn.Module):
    """A recurrence as stacks of linear recurrent units have it (after Orvieto et al., 2023).

    h = recurrence(LN(x))    y = x_s + dropout(h_s ⊙ σ(W h_s + b))

    x_s and h_s are each s-th step of x and h: with s = 4 steps 4, 8, 12, …, which have heard those
    between. The blocks above take fewer steps, so that they cost less and remember further (El
    Hihi & Bengio, 1996; Chan et al., 2016). Where y is not as wide as x, there is no x_s in it; an
    input of one number is not normalised, because nothing would be left of it.

    Args:
        cell: of the recurrence.
        stride: s.
        dropout: the probability, while training, to drop a number of what is added.
    """

    def __init__(self, cell: Cell, stride: int = 1, dropout: float = 0.0):
        super().__init__()
        self.recurrent, self.stride = Recurrent(cell), stride
        before, self.size = cell.input_size, self.recurrent.output_size
        self.norm = nn.LayerNorm(before) if before > 1 else nn.Identity()
        self.gate = nn.Linear(self.size, self.size)
        self.dropout = nn.Dropout(dropout)
        self.linked = before == self.size

    def forward(self, x: Tensor) -> Tensor:
        """y (T / s, B, H) from x (T, B, M)."""
        kept = slice(self.stride - 1, None, self.stride)
        h = self.recurrent(self.norm(x))[0][kept]
        y = self.dropout(h * sigmoid(self.gate(h)))
        return x[kept] + y if self.linked else y


class Pyramid(nn.Module):
    """Blocks on top of each other, time growing coarser, read as a whole: V LN(mean_t x_t) + b.

    Args:
        make: a cell of M inputs and H units, from M and H.
        inputs, outputs: of the whole.
        hidden_sizes: the width of each block.
        strides: s of each block; 1 for those for which there is none.
        dropout: of each block.

    Raises:
        InputError: there are more strides than blocks.
    """

    def __init__(
        self,
        make: Callable[[int, int], Cell],
        inputs: int,
        outputs: int,
        hidden_sizes: Sequence[int],
        strides: Sequence[int] = (),
        dropout: float = 0.0,
    ):
        super().__init__()
        if len(strides) > len(hidden_sizes):
            raise InputError(
                f"strides must be at most {len(hidden_sizes)}, one a layer, received {strides}."
            )
        size, self.blocks = inputs, nn.ModuleList()
        for width, stride in zip_longest(hidden_sizes, strides, fillvalue=1):
            block = Block(make(size, width), stride, dropout)
            self.blocks.append(block)
            size = block.size
        self.norm = nn.LayerNorm(size)
        self.readout = nn.Linear(size, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """y (B, O)."""
        x = batch.x.to(self.readout.weight)
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x.mean(0)))


@dataclass
class PixelSettings(LearningSettings):
    """What reading digits pixel by pixel can be told."""

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
        self.images, self.labels = read("train", order)
        self.tested = read("t10k", order)

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """Images to learn from, drawn with replacement."""
        drawn = torch.randint(len(self.images) - HELD_OUT, (count,), generator=draw)
        return self._batch(self.images[drawn], self.labels[drawn])

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The mean cross-entropy of the digit, in nats."""
        return cross_entropy(self._classes(network, batch), batch.target)

    def make(self) -> nn.Module:
        """A fresh network."""
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
        return self._right(network, self.images[-HELD_OUT:], self.labels[-HELD_OUT:])

    def figure(self, network: nn.Module, draw: torch.Generator) -> float:
        """The share right of the test images."""
        return self._right(network, *self.tested)

    def _batch(self, images: Tensor, labels: Tensor) -> Batch:
        pixels = images[:, : self.settings.length].to(torch.get_default_dtype()) / 255
        return Batch((pixels.t().unsqueeze(-1) - 0.1307) / 0.3081, labels)

    def _classes(self, network: nn.Module, batch: Batch) -> Tensor:
        y = network(batch)
        return y.mean(0) if self.settings.plain else y

    def _right(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        right = 0
        network.eval()
        for some, their in zip(images.split(250), labels.split(250), strict=True):
            classes = self._classes(network, self._batch(some, their)).argmax(-1)
            right += int((classes == their).sum())
        network.train()
        return right / len(labels)


def read(part: str, order: Tensor) -> tuple[Tensor, Tensor]:
    """Images (N, 784) of bytes, their pixels in that order, and digits (N).

    Args:
        part: ``"train"`` or ``"t10k"``: of the files ``mnist/PART-images-idx3-ubyte.gz`` and
            ``mnist/PART-labels-idx1-ubyte.gz`` in the folder that ``ELMAN_DATA`` names.
        order: a permutation of the 784 pixels.

    Raises:
        ElmanError: a file is missing, or is not MNIST's.
    """
    folder = Path(os.environ.get("ELMAN_DATA", ".")) / "mnist"
    found = []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        path = folder / f"{part}-{kind}-ubyte.gz"
        try:
            content = gzip.decompress(path.read_bytes())[header:]
        except OSError as error:
            raise ElmanError(
                f"{path} cannot be read ({error.strerror or error}): put MNIST's four files there "
                "and let ELMAN_DATA name the folder above."
            ) from error
        found.append(torch.from_numpy(np.frombuffer(content, np.uint8).copy()))
    images, labels = found
    if len(images) != 784 * len(labels):
        raise ElmanError(
            f"{folder} holds {len(images)} pixels for {len(labels)} digits: not MNIST."
        )
    return images.view(-1, 784)[:, order], labels.long()
