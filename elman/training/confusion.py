"""Right and wrong by class: counts that add up over batches and processes, and tables of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.training.measures import Sums

_MARK = "confused"


def confused(expected: Tensor, received: Tensor, classes: int) -> Sums:
    """How often each class was taken for each, as sums.

    Args:
        expected, received: ids of classes, of one shape.
        classes: how many there are.
    """
    pairs = expected.flatten().long() * classes + received.flatten().long()
    counts = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    found = {(int(i), int(j)): float(counts[i, j]) for i, j in counts.nonzero().tolist()}
    return {f"{_MARK} {i} {j}": count for (i, j), count in found.items()}


def matrix(sums: Sums, classes: int) -> np.ndarray:
    """The confusion matrix (expected, received) of such sums."""
    found = np.zeros((classes, classes), np.int64)
    for name, count in sums.items():
        kind, _, place = name.partition(" ")
        if kind == _MARK:
            i, j = map(int, place.split())
            found[i, j] = round(count)
    return found


def rates(sums: Sums, classes: int) -> dict[str, float]:
    """Accuracy, and F1 as the mean over the classes that are there (scikit-learn's macro F1)."""
    found = matrix(sums, classes)
    right, expected, received = np.diag(found), found.sum(1), found.sum(0)
    there = (expected + received) > 0
    f1 = 2 * right[there] / (expected + received)[there]
    total = found.sum()
    return {
        "accuracy": float(right.sum() / total) if total else 0.0,
        "macro_f1": float(f1.mean()) if there.any() else 0.0,
    }


def tables(sums: Sums, names: Sequence[str]) -> dict[str, Any]:
    """What scikit-learn reports of each class, and the confusion matrix, by names.

    Returns:
        ``labels``: precision, recall, F1 and support of each class that is there; ``confusion``:
        for each expected class, how often each was received.
    """
    from sklearn.metrics import precision_recall_fscore_support

    found = matrix(sums, len(names))
    there = np.flatnonzero(found.sum(0) + found.sum(1)).tolist()
    expected, received = found.nonzero()
    scores = precision_recall_fscore_support(
        expected, received, labels=there, sample_weight=found[expected, received], zero_division=0
    )
    columns = ("precision", "recall", "f1", "support")
    labels = {
        names[k]: dict(zip(columns, (float(p), float(r), float(f), int(n)), strict=True))
        for k, p, r, f, n in zip(there, *scores, strict=True)
    }
    confusion = {names[i]: {names[j]: int(found[i, j]) for j in there} for i in there}
    return {"labels": labels, "confusion": confusion}


def balanced(counts: Sequence[int]) -> Tensor:
    """A weight for each class by which all count alike: N / (C n_c), as scikit-learn has it."""
    found = torch.tensor(counts, dtype=torch.get_default_dtype())
    return found.sum() / (len(found) * found.clamp(min=1))
