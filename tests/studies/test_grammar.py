"""Strings of the embedded Reber grammar."""

from __future__ import annotations

import random
import re

import torch

from elman.studies.grammar import Reber, reber


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_reber_strings_are_of_the_grammar():
    # The same grammar as an expression: p and q are its two inner states with a loop.
    q = "T*V(?:PXT*V)*(?:V|PS)"
    inner = re.compile(f"B(?:TS*X(?:S|X{q})|P{q})E")
    seen = set()
    for k in range(200):
        text, legal = reber(random.Random(k))
        assert len(legal) == len(text) - 1
        assert all(after in allowed for after, allowed in zip(text[1:], legal, strict=True))
        assert text[0] == "B" and text[-1] == "E" and text[1] == text[-2] and text[1] in "TP"
        assert inner.fullmatch(text[2:-2])
        seen |= {(text[1], len(text))}
    assert {outer for outer, _ in seen} == {"T", "P"} and len({n for _, n in seen}) > 5


def test_reber_batches_are_padded():
    batch = Reber(Reber.Settings()).batch(drawn(), 8, 1)
    for k, length in enumerate(batch.lengths.tolist()):
        assert (batch.target[:length, k] >= 0).all() and (batch.target[length:, k] == -1).all()
