from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight

from elman.training.confusion import balanced, confused, draw, matrix, rates, tables
from elman.training.measures import add

labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(labels, st.integers(0, 40))
def test_sums_of_pieces_give_what_scikit_learn_gives_of_the_whole(pairs, cut):
    expected, received = torch.tensor(pairs).T
    sums = {}
    for part in (slice(cut), slice(cut, None)):
        add(sums, confused(expected[part], received[part], 4))
    assert (matrix(sums, 4) == metrics.confusion_matrix(expected, received, labels=range(4))).all()
    found = rates(sums, 4)
    assert abs(found["accuracy"] - metrics.accuracy_score(expected, received)) < 1e-12
    wanted = metrics.f1_score(expected, received, average="macro", zero_division=0)
    assert abs(found["macro_f1"] - wanted) < 1e-12
    table = tables(sums, "abcd")["labels"]
    report = metrics.classification_report(expected, received, output_dict=True, zero_division=0)
    for k, name in enumerate("abcd"):
        if str(k) in report:
            there = report[str(k)]
            assert table[name] == {
                "precision": there["precision"], "recall": there["recall"],
                "f1": there["f1-score"], "support": there["support"],
            }  # fmt: skip
        else:
            assert name not in table


def test_confusion_is_told_by_names():
    sums = confused(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 3)
    assert tables(sums, ["no", "yes", "never"])["confusion"] == {
        "no": {"no": 1, "yes": 1}, "yes": {"yes": 1},
    }  # fmt: skip


def test_balanced_weights_are_scikit_learns():
    y = np.array([0] * 7 + [1] * 2 + [2])
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=y)
    torch.testing.assert_close(
        balanced([7, 2, 1]).double(), torch.tensor(wanted), rtol=1e-6, atol=0
    )


def test_what_the_tables_say_can_be_drawn(tmp_path):
    found = tables(confused(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]), 4), list("abcd"))
    draw(found, tmp_path / "confusion.png", "a model")
    assert (tmp_path / "confusion.png").stat().st_size > 5000
