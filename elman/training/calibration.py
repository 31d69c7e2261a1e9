"""Whether confidence can be relied on: sums by bins of it, and the error that they give."""

from __future__ import annotations

from torch import Tensor

from elman.training.measures import Sums

BINS = 10
"""Bins of confidence, equally wide."""

_SURE, _RIGHT = "sure", "right when sure"


def binned(confidences: Tensor, right: Tensor) -> Sums:
    """How sure predictions were, and how often right, by bins of confidence, as sums.

    Args:
        confidences: (N,) the probability of each prediction, in 0 … 1.
        right: (N,) bool, whether it was right.
    """
    sure = confidences.double()
    places = (sure * BINS).long().clamp(0, BINS - 1)
    sums: Sums = {}
    for name, values in ((_SURE, sure), (_RIGHT, right.double())):
        totals = places.new_zeros(BINS, dtype=values.dtype).index_add(0, places, values)
        sums |= {f"{name} {k}": total for k, total in enumerate(totals.tolist())}
    return sums


def calibration_error(sums: Sums) -> float:
    """The expected calibration error of such sums: Σ_b |right_b − sure_b| / N (Guo et al., 2017).

    A model that is right in 80 % of the cases in which it says 0.8 has 0; ``count`` is N.
    """
    gaps = (abs(sums[f"{_RIGHT} {k}"] - sums[f"{_SURE} {k}"]) for k in range(BINS))
    return sum(gaps) / sums["count"]
