"""Accuracy by confidence, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from elman import InputError
from elman.plots.reliability import draw_reliability


def test_bins_are_those_of_scikit_learn(drawn, tmp_path):
    draw = np.random.default_rng(0)
    sure = draw.beta(5, 2, 500)
    right = draw.random(500) < sure**2
    draw_reliability(sure, right, tmp_path / "a.png", title="a model")
    above, below = drawn[0].axes
    accuracy, confidence = calibration_curve(right, sure, n_bins=10)
    assert above.lines[1].get_xydata() == pytest.approx(np.column_stack([confidence, accuracy]))
    assert [bar.get_height() for bar in above.patches] == pytest.approx(accuracy)
    counts = [bar.get_height() for bar in below.patches]
    assert sum(counts) == 500 and len(counts) == 10
    filled = np.array(counts)[np.array(counts) > 0]
    error = filled @ abs(accuracy - confidence) / 500
    assert above.get_title("left").endswith(f"ECE {error:.3f}")


def test_the_ends_belong_to_it(drawn, tmp_path):
    draw_reliability([0.0, 1.0], [False, True], tmp_path / "a.png", bins=4)
    above, below = drawn[0].axes
    assert [bar.get_height() for bar in below.patches] == [1, 0, 0, 1]
    assert above.get_title("left") == "right 50.0%, sure 50.0%, ECE 0.000"


@pytest.mark.parametrize(
    ("sure", "right", "message"),
    [
        ([], [], "received the shapes"),
        ([0.5], [1, 0], r"received the shapes \(1,\) and \(2,\)"),
        ([0.5, 1.5], [1, 0], r"probabilities in 0 … 1, received 0.5 … 1.5"),
        ([np.nan], [1], "probabilities"),
    ],
)
def test_what_is_no_confidence(sure, right, message, tmp_path):
    with pytest.raises(InputError, match=message):
        draw_reliability(sure, right, tmp_path / "a.png")
