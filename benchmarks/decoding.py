"""A CRF beside pytorch-crf, and what a beam takes beside the model that it asks.

    python benchmarks/decoding.py [--turns 40]

On one thread. Calls take turns, so that what else the machine does meanwhile meets them alike.
Printed: medians of processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torchcrf
from torch import nn

import elman
from elman.decoding import beam, viterbi


def in_turns(calls: dict[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """The median of each call's milliseconds, after a warm-up."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + turns):
        for name, call in calls.items():
            began = time.process_time()
            call()
            taken[name].append(1e3 * (time.process_time() - began))
    return {name: statistics.median(each[1:]) for name, each in taken.items()}


def chains(turns: int, steps: int = 50, batch: int = 32, labels: int = 20) -> dict[str, float]:
    """A batch of padded sequences through both libraries."""
    crf, other = elman.CRF(labels), torchcrf.CRF(labels)
    lengths = torch.randint(1, steps + 1, (batch,)).index_fill(0, torch.tensor([0]), steps)
    emissions = torch.randn(steps, batch, labels, requires_grad=True)
    tags = torch.randint(labels, (steps, batch))
    mask = torch.arange(steps).unsqueeze(1) < lengths
    return in_turns(
        {
            "likelihood and gradient, elman": lambda: (
                crf.log_likelihood(emissions, tags, lengths).sum().backward()
            ),
            "likelihood and gradient, pytorch-crf": lambda: other(
                emissions, tags, mask=mask
            ).backward(),
            "likeliest path, elman": lambda: viterbi(emissions, *crf.scores(), lengths),
            "likeliest path, pytorch-crf": lambda: other.decode(emissions, mask=mask),
        },
        turns,
    )


class Decoder(nn.Module):
    """A decoder of usual sizes, which attends to a memory of 25 places."""

    def __init__(self, words: int = 8000, size: int = 256):
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        self.recurrent = elman.LSTM(size, size)
        self.attention = elman.Attention(size, 2 * size)
        self.output = nn.Linear(3 * size, words)

    def forward(self, tokens: Any, state: Any) -> tuple[Any, Any]:
        recurrent, memory = state
        h, recurrent = self.recurrent.step(self.embedding(tokens), recurrent)
        context, _ = self.attention(h, memory)
        return self.output(torch.cat([h, context], -1)), (recurrent, memory)


def beams(turns: int, batch: int = 32, width: int = 5, length: int = 20) -> dict[str, float]:
    """Sentences of one length through a beam, and the steps alone, of as many rows."""
    model = Decoder().eval()
    memory = torch.randn(25, batch, 512)
    start = torch.ones(batch, dtype=torch.long)

    @torch.inference_mode()
    def started(copies: int) -> Any:
        every = memory.repeat_interleave(copies, 1)
        return model.recurrent.initial_state(batch * copies), model.attention.prepare(every)

    def search() -> None:
        beam(model, started(1), start, 0, width, max_length=length, min_length=length)

    @torch.inference_mode()
    def steps() -> None:
        state, tokens = started(width), start.repeat_interleave(width)
        for _ in range(length + 1):
            _, state = model(tokens, state)

    return in_turns(
        {f"a beam of {width}, {length} steps": search, "the model's steps alone": steps},
        max(3, turns // 10),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=40)
    turns = parser.parse_args().turns
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print("| | processor ms |\n|---|---|")
    for name, milliseconds in {**chains(turns), **beams(turns)}.items():
        print(f"| {name} | {milliseconds:.1f} |")


if __name__ == "__main__":
    main()
