"""Precision, recall and F1 of what is found in sentences, of sums that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from elman.training.measures import Sums

Found = tuple[Any, ...]
"""Something that is found in a sentence: its label, and where."""


def spans_of(tags: Sequence[str]) -> set[Found]:
    """The spans that tags write, as seqeval finds them, which is as the scorer of CoNLL does.

    Args:
        tags: of one sentence, such as ``["B-PER", "I-PER", "O"]``, in any scheme.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    # seqeval knows M as I, L and U as E and S.
    return set(get_entities([tag[:1].translate(_LETTERS) + tag[1:] for tag in tags]))


def counted(sentences: Iterable[tuple[set[Found], set[Found]]], what: str) -> Sums:
    """How many there are of each label, how many were found, and how many of these are right.

    Args:
        sentences: what is in each, and what a model has found in it.
        what: they are, such as "span".
    """
    sums: Counter[str] = Counter()
    for given, found in sentences:
        for kind, some in zip(_KINDS, (given, found, given & found), strict=True):
            sums.update(f"{what} {kind} {each[0]}" for each in some)
    return {name: float(count) for name, count in sums.items()}


def scored(sums: Mapping[str, float], *what: str) -> dict[str, float]:
    """Precision, recall and F1 over all labels, the micro average."""
    counts = [count for each in what for count in _by_label(sums, each).values()]
    row = _row(*(sum(count[k] for count in counts) for k in range(len(_KINDS))))
    del row["support"]
    return row


def table(sums: Mapping[str, float], what: str) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and support of each label."""
    return {label: _row(*counts) for label, counts in sorted(_by_label(sums, what).items())}


_KINDS = ("given", "found", "right")
_LETTERS = str.maketrans("MLU", "IES")


def _by_label(sums: Mapping[str, float], what: str) -> dict[str, list[int]]:
    """How many are given, found and right, for each label."""
    counts: dict[str, list[int]] = {}
    for name, count in sums.items():
        parts = name.split(" ", 2)
        if len(parts) == 3 and parts[0] == what and parts[1] in _KINDS:
            counts.setdefault(parts[2], [0, 0, 0])[_KINDS.index(parts[1])] = round(count)
    return counts


def _row(given: int, found: int, right: int) -> dict[str, Any]:
    return {
        "precision": right / found if found else 0.0,
        "recall": right / given if given else 0.0,
        "f1": 2 * right / (given + found) if given + found else 0.0,
        "support": given,
    }
