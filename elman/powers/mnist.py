"""Digits read pixel by pixel (Le, Jaitly & Hinton, 2015)."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, sigmoid
from torch.nn.functional import cross_entropy

from elman.cells import LRU, Cell, Linear
from elman.errors import ElmanError, InputError
from elman.powers.power import Batch, Learning, LearningSettings, Reader, make_cell
from elman.training.settings import option

HELD_OUT = 2000  # of the 60,000 images, for the checks


class GatedLRU(LRU):
    """A linear recurrent unit with a gated output, so that a stack of them is not linear.

    c' = λ ⊙ c + γ ⊙ (B x)    y = Re(C c') + D x    h' = y ⊙ σ(W y + b)

    The gate is that of Orvieto et al. (2023), whose blocks have it after each unit.

    Parameters: 3·H + 3·H·M + 2·H·H + H·(H + 1).
    """

    gate = Linear(of="h", bias=True)

    def output(self, c: Tensor, x: Tensor) -> Tensor:
        """See :class:`LinearRecurrence`."""
        y = super().output(c, x)
        return y * sigmoid(self.gate(y))


@dataclass
class PixelSettings(LearningSettings):
    """What reading digits pixel by pixel can be told."""

    layers: int = option(1, "Layers.", least=1)
    permuted: bool = option(False, "The pixels in a random order, the same for all images.")


class PixelMNIST(Learning):
    """Handwritten digits, a pixel a step: which digit was it?

    28 × 28 grey values are read one by one, row by row or, ``permuted``, in a random order that is
    the same for all images: all 784 of them, none left out. The mean of the last layer's outputs
    over all steps is classified. 58,000 images are learned from, 2,000 held out for the checks; the
    figure is the share right of the 10,000 test images.
    """

    name = "pixel-mnist"
    title = "handwritten digits, read pixel by pixel"
    source = "Le, Jaitly & Hinton, 2015"
    inputs, outputs = 1, 10
    measure = "share right"
    goal, reach = 1.0, 0.95
    higher = True
    Settings = PixelSettings.with_defaults(
        cell="gated-lru", hidden=64, layers=2, length=784, updates=8500, batch=32,
        learning_rate=4e-3, every=500, seeds=1,
    )  # fmt: skip
    settings: PixelSettings

    def __init__(self, settings: PixelSettings):
        super().__init__(settings)
        if settings.length > 784:
            raise InputError(f"an image has 784 pixels, received --length {settings.length}.")
        order = torch.arange(784)
        if settings.permuted:
            order = torch.randperm(784, generator=torch.Generator().manual_seed(92))
        self.images, self.labels = read("train", order)
        self.tested = read("t10k", order)

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """Images to learn from, drawn with replacement."""
        drawn = torch.randint(len(self.images) - HELD_OUT, (count,), generator=draw)
        return self._batch(self.images[drawn], self.labels[drawn])

    def loss(self, network: Reader, batch: Batch) -> Tensor:
        """The mean cross-entropy of the digit, in nats."""
        return cross_entropy(self._classes(network, batch), batch.target)

    def make(self) -> Reader:
        """A fresh network; layers that can have it have a residual link."""
        its = self.settings
        if its.cell == "gated-lru":
            cell: Cell = GatedLRU(1, its.hidden, radius=(0.9, 0.999))
        else:
            cell = make_cell(its, 1)
        return Reader(cell, self.outputs, its.layers, skip="residual")

    def check(self, network: Reader, draw: torch.Generator) -> float:
        """The share right of the images held out."""
        return self._right(network, self.images[-HELD_OUT:], self.labels[-HELD_OUT:])

    def figure(self, network: Reader, draw: torch.Generator) -> float:
        """The share right of the test images."""
        return self._right(network, *self.tested)

    def _batch(self, images: Tensor, labels: Tensor) -> Batch:
        pixels = images[:, : self.settings.length].float() / 255
        return Batch((pixels.t().unsqueeze(-1) - 0.1307) / 0.3081, labels)

    def _classes(self, network: Reader, batch: Batch) -> Tensor:
        return network.readout(network.recurrent(batch.x)[0].mean(0))

    def _right(self, network: Reader, images: Tensor, labels: Tensor) -> float:
        right = 0
        for some, their in zip(images.split(250), labels.split(250), strict=True):
            classes = self._classes(network, self._batch(some, their)).argmax(-1)
            right += int((classes == their).sum())
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
