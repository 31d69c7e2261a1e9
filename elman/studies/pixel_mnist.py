"""Digits read pixel by pixel (Le, Jaitly & Hinton, 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from elman.data.images import mnist
from elman.errors import InputError
from elman.layers import Pyramid
from elman.studies.batch import Batch
from elman.studies.networks import Reader
from elman.studies.trained import TrainedSettings, TrainedStudy
from elman.training.measures import Loss, Measure, Sums
from elman.training.settings import option

HELD_OUT = 2000  # of the 60,000 images, for the checks


@dataclass
class PixelSettings(TrainedSettings):
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


class PixelMNIST(TrainedStudy):
    """Handwritten digits, a pixel a step: which digit was it?

    28 × 28 grey values are read one by one, row by row or, ``permuted``, in a random order that is
    the same for all images: all 784 of them, none left out. The mean of the last layer's outputs
    is classified. 58,000 images are learned from, 2,000 held out for the checks; the measure is the
    share right of the 10,000 test images.

    The default is a :class:`Pyramid` of linear recurrent units. Its strides, 4 and 7, make 28
    steps of the 784: in the usual order one for each row.
    """

    name = "pixel-mnist"
    subject = "handwritten digits, read pixel by pixel"
    source = "Le, Jaitly & Hinton, 2015"
    inputs, outputs = 1, 10
    headline = Measure("accuracy", higher=True)
    goal, reach = 1.0, 0.99  # 0.95 in a random order
    seeds = 1
    Settings = PixelSettings.with_defaults(
        cell="lru", memory=10, hidden=64, length=784, updates=20000, batch=32,
        learning_rate=3e-3, every=1000,
    )  # fmt: skip
    settings: PixelSettings

    def __init__(self, settings: PixelSettings, data: Sequence[str] = ()):
        super().__init__(settings, data)
        if settings.length > 784:
            raise InputError(f"an image has 784 pixels, received `length` {settings.length}.")
        left = settings.length // prod([] if settings.plain else settings.strides)
        if left < 1:
            raise InputError(
                f"strides of {settings.strides} leave nothing of {settings.length} pixels: "
                "lower `strides` or raise `length`."
            )
        if settings.permuted:
            self.reach = 0.95

    @cached_property
    def _parts(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Images (N, 784), in the order in which they are read, and digits (N), by part."""
        order = torch.arange(784)
        if self.settings.permuted:
            order = torch.randperm(784, generator=torch.Generator().manual_seed(92))
        (images, labels), (tested, digits) = mnist("train"), mnist("t10k")
        images, tested = images.flatten(1)[:, order], tested.flatten(1)[:, order]
        return {
            "train": (images[:-HELD_OUT], labels[:-HELD_OUT]),
            "validation": (images[-HELD_OUT:], labels[-HELD_OUT:]),
            "test": (tested, digits),
        }

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """Images to learn from, drawn with replacement."""
        images, labels = self._parts["train"]
        drawn = torch.randint(len(images), (count,), generator=draw)
        return self._batch(images[drawn], labels[drawn])

    def held_out(self, part: str) -> list[Callable[[], Batch]]:
        """The images of that part, all of them."""
        images, labels = (values.split(250) for values in self._parts[part])
        return [partial(self._batch, *some) for some in zip(images, labels, strict=True)]

    def build(self) -> nn.Module:
        """A new network."""
        its = self.settings
        if its.plain:
            return Reader(self.make_cell(self.inputs, its.hidden), self.outputs, its.layers)
        sizes = its.hidden_sizes or [its.hidden] * its.layers
        return Pyramid(self.make_cell, self.inputs, self.outputs, sizes, its.strides, its.dropout)

    def loss(self, model: nn.Module, batch: Batch, carry: Any) -> Loss:
        """The mean cross-entropy of the digit, in nats."""
        if self.settings.plain:
            y = model(batch).mean(0)
        else:
            y = model(batch.x.to(next(model.parameters())))
        right = {"right": float((y.argmax(-1) == batch.target).sum())}
        return Loss(cross_entropy(y, batch.target), len(batch), sums=right)

    def measures(self, sums: Sums) -> dict[str, float]:
        """The share of images that are given their digit."""
        return {"accuracy": sums["right"] / sums["count"]}

    def widths(self) -> str:
        """The width of each layer, and the order of the pixels."""
        its = self.settings
        sizes = its.hidden_sizes or [its.hidden] * its.layers
        order = "permuted" if its.permuted else "in order"
        return f"{', '.join(map(str, sizes))} units{', plain' if its.plain else ''}, {order}"

    def _batch(self, images: Tensor, labels: Tensor) -> Batch:
        pixels = images[:, : self.settings.length].to(torch.get_default_dtype()) / 255
        return Batch((pixels.t().unsqueeze(-1) - 0.1307) / 0.3081, labels)
