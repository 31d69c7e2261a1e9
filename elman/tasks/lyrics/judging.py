"""Judging verse that was written: is it in form, is it varied, is it copied?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from elman.tasks.lyrics.prosody import Prosody, Verse

# A run of so many words or more that stands in a poem that was learned from is called copied.
_COPIED = 5


def judge(
    poems: Sequence[Verse], prosody: Prosody, known: Sequence[np.ndarray]
) -> dict[str, float]:
    """Figures of poems.

    Args:
        poems: one at least, each with the form that it was to be in.
        prosody: the tunes' forms.
        known: the bodies of the poems that were learned from.

    Returns:
        ``in_form``: the share whose clauses have, line by line, the lengths of a poem of the same
        tune that was learned from; ``as_asked``: the share in just the form that was asked for,
        marks and all; ``distinct_1`` and ``distinct_2``: how many different words, and pairs of
        them, for one (Li et al., 2016); ``longest_run``: how many words of a poem in a row stand so
        in one that was learned from, at most, the mean over the poems; ``copied``: the share of
        words in such runs of 5 or more. Marks and line ends are left out of the last four.
    """
    forms = [prosody.form(poem.body) for poem in poems]
    known_lengths = {t: {f.lengths for f in of} for t, of in prosody.forms.counts.items()}
    words = [prosody.words(poem.body) for poem in poems]
    runs = common_runs(words, [prosody.words(body) for body in known])
    pairs = list(zip(poems, forms, strict=True))
    return {
        "poems": len(poems),
        "in_form": _mean(form.lengths in known_lengths.get(p.tune, ()) for p, form in pairs),
        "as_asked": _mean(form == poem.form for poem, form in pairs),
        "distinct_1": _distinct(words, 1),
        "distinct_2": _distinct(words, 2),
        "longest_run": _mean(run.max(initial=0) for run in runs),
        "copied": _mean(np.concatenate([covered(run, _COPIED) for run in runs])),
    }


def _mean(values: Iterable[Any]) -> float:
    every = list(values)
    return float(np.mean(every)) if every else 0.0


def _distinct(texts: Sequence[np.ndarray], n: int) -> float:
    grams = [tuple(text[k : k + n]) for text in texts for k in range(len(text) - n + 1)]
    return len(set(grams)) / max(1, len(grams))


def common_runs(texts: Sequence[np.ndarray], known: Sequence[np.ndarray]) -> list[np.ndarray]:
    """How many tokens from each place on stand so, in a row, in one of the known texts.

    Windows of 1, 2, 3 … tokens are looked up by a number made of their tokens (Karp & Rabin, 1987),
    as long as some are found.

    Args:
        texts: ids (N) each.
        known: ids each.

    Returns:
        a length for each place (N) of each text.
    """
    asked, given = _Windows(_joined(texts, -1)), _Windows(_joined(known, -2))
    runs = np.zeros(len(asked.tokens), np.int64)
    while len(asked.starts):
        asked.lengthen()
        given.lengthen()
        here, there = asked.numbers, given.numbers
        asked.keep(np.isin(here, there))
        given.keep(np.isin(there, here))
        runs[asked.starts] += 1
    ends = np.cumsum([len(text) + 1 for text in texts])
    return [run[:-1] for run in np.split(runs, ends[:-1])]


class _Windows:
    """Windows of a text, all of one length, and a number for each that tells them apart."""

    def __init__(self, tokens: np.ndarray):
        self.tokens, self.length = tokens, 0
        self.starts = np.arange(len(tokens))
        self.numbers = np.zeros(len(tokens), np.uint64)

    def lengthen(self) -> None:
        """Take one token more into each."""
        # Behind the end stands what ends the last text: no window of another text has that.
        last = self.tokens[np.minimum(self.starts + self.length, len(self.tokens) - 1)]
        self.numbers = self.numbers * _FACTOR + last
        self.length += 1

    def keep(self, some: np.ndarray) -> None:
        """Leave out the others."""
        self.starts, self.numbers = self.starts[some], self.numbers[some]


_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def _joined(texts: Sequence[np.ndarray], between: int) -> np.ndarray:
    """Texts one after the other, with what is no token between, so that no run goes across."""
    parts = [part for text in texts for part in (text, [between])]
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.uint64)


def covered(runs: np.ndarray, least: int) -> np.ndarray:
    """Which places lie in a run of at least so many tokens."""
    steps = np.zeros(len(runs) + 1, np.int64)
    begins = np.flatnonzero(runs >= least)
    np.add.at(steps, begins, 1)
    np.add.at(steps, begins + runs[begins], -1)
    return steps[:-1].cumsum() > 0
