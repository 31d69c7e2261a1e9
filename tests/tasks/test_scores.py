from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score

from elman.tasks.scores import counted, scored, spans_of, table
from elman.training.measures import add

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")

# Also those that no scheme allows: a model without constraints may find them.
TAGS = ["O", "B-X", "I-X", "E-X", "S-X", "B-long-name", "I-long-name"]
sentences = st.lists(
    st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=8),
    min_size=1, max_size=6,
)  # fmt: skip


@given(sentences, st.integers(0, 6))
def test_sums_of_pieces_give_what_seqeval_gives_of_the_whole(pairs, cut):
    given_tags, found_tags = ([[p[k] for p in each] for each in pairs] for k in range(2))
    sums = {}
    for some in (slice(cut), slice(cut, None)):
        rows = zip(given_tags[some], found_tags[some], strict=True)
        add(sums, counted(((spans_of(a), spans_of(b)) for a, b in rows), "span"))
    found = scored(sums, "span")
    for name, metric in (
        ("f1", f1_score),
        ("precision", precision_score),
        ("recall", recall_score),
    ):
        assert found[name] == pytest.approx(metric(given_tags, found_tags, zero_division=0))
    rows = table(sums, "span")
    if not rows:  # of which seqeval has no report
        return
    report = classification_report(given_tags, found_tags, output_dict=True, zero_division=0)
    for label, row in rows.items():
        figures = report[label]
        assert row["f1"] == pytest.approx(figures["f1-score"])
        assert row["support"] == figures["support"]


def test_what_is_counted_is_kept_apart():
    sums = counted([({("a", 0, 1)}, {("a", 0, 1), ("b", 2, 3)})], "entity")
    sums |= counted([({("born in", 0, 1)}, set())], "relation")
    assert table(sums, "relation") == {
        "born in": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    }
    assert scored(sums, "entity")["precision"] == 0.5
    assert scored(sums, "entity", "relation")["recall"] == 0.5


def test_spans_are_the_same_in_every_scheme():
    bioes = ["B-X", "I-X", "E-X", "S-X", "O"]
    bilou = ["B-X", "I-X", "L-X", "U-X", "O"]
    bmes = ["B-X", "M-X", "E-X", "S-X", "O"]
    assert spans_of(bilou) == spans_of(bmes) == spans_of(bioes) == {("X", 0, 2), ("X", 3, 3)}
