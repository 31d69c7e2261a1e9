"""Expected calibration error, against scikit-learn's curve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from elman.training.calibration import BINS, binned, calibration_error
from elman.training.measures import add


def test_sums_of_pieces_give_the_error_of_the_whole():
    draw = np.random.default_rng(0)
    sure = draw.beta(5, 2, 500)
    right = draw.random(500) < sure**2
    sums = {"count": len(sure)}
    for part in (slice(123), slice(123, None)):
        add(sums, binned(torch.tensor(sure[part]), torch.tensor(right[part])))
    accuracy, confidence = calibration_curve(right, sure, n_bins=BINS)
    counts = np.histogram(sure, np.linspace(0, 1, BINS + 1))[0]
    expected = counts[counts > 0] @ abs(accuracy - confidence) / len(sure)
    assert calibration_error(sums) == pytest.approx(expected, rel=1e-12)


def test_who_is_sure_and_right_has_none():
    assert calibration_error({"count": 2, **binned(torch.ones(2), torch.tensor([True, True]))}) == 0
    wrong = binned(torch.ones(2), torch.tensor([False, False]))
    assert calibration_error({"count": 2, **wrong}) == 1
