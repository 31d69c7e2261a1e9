from __future__ import annotations

import itertools

import pytest
import torch
import torchcrf
from hypothesis import given
from hypothesis import strategies as st

from elman import CRF
from elman.decoding import k_best, viterbi
from elman.errors import InputError


def drawn(steps: int, batch: int, labels: int) -> tuple[torch.Tensor, ...]:
    shapes = (steps, batch, labels), (labels, labels), (labels,), (labels,)
    return tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)


def every(emissions, transitions, starts, ends, length) -> list[tuple[float, list[int]]]:
    """All sequences of labels of one sentence (T, L), the best first."""
    found = []
    for path in itertools.product(range(len(starts)), repeat=length):
        score = sum(float(emissions[t, label]) for t, label in enumerate(path))
        score += sum(float(transitions[pair]) for pair in itertools.pairwise(path))
        score += float(starts[path[0]] + ends[path[-1]]) if path else 0.0
        found.append((score, list(path)))
    return sorted(found, reverse=True)


@given(
    st.integers(1, 3),
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(0, 10_000),
)
def test_the_best_of_all_sequences(labels, lengths, k, seed):
    torch.manual_seed(seed)
    emissions, *chain = drawn(max(lengths), len(lengths), labels)
    for b, length in enumerate(lengths):
        emissions[length:, b] = torch.nan
    paths, scores = viterbi(emissions, *chain, lengths)
    ranks = k_best(emissions, *chain, lengths, k=k)
    for b, length in enumerate(lengths):
        best = every(emissions[:, b], *chain, length)
        assert paths[b] == best[0][1]
        assert float(scores[b]) == pytest.approx(best[0][0])
        assert [path.labels for path in ranks[b]] == [path for _, path in best[:k]]
        assert [path.score for path in ranks[b]] == pytest.approx([s for s, _ in best[:k]])


def test_what_is_barred_is_on_no_path():
    emissions, transitions, starts, ends = drawn(4, 3, 3)
    transitions[0, 1] = transitions[2, 2] = starts[2] = ends[0] = -torch.inf
    (ranks, *_) = k_best(emissions, transitions, starts, ends, k=100)
    best = every(emissions[:, 0], transitions, starts, ends, 4)
    assert [p.labels for p in ranks] == [path for score, path in best if score > -torch.inf]
    paths, _ = viterbi(emissions, transitions, starts, ends)
    assert paths[0] == ranks[0].labels
    nothing = torch.full_like(starts, -torch.inf)
    assert viterbi(emissions, transitions, nothing, ends)[1].tolist() == [-torch.inf] * 3


def test_it_is_the_outside_librarys():
    emissions, transitions, starts, ends = drawn(15, 6, 7)
    other = torchcrf.CRF(7).double()
    other.transitions.data, other.start_transitions.data = transitions, starts
    other.end_transitions.data, lengths = ends, [15, 1, 8, 2, 15, 4]
    mask = torch.arange(15).unsqueeze(1) < torch.tensor(lengths)
    paths, _ = viterbi(emissions, transitions, starts, ends, lengths)
    assert paths == other.decode(emissions, mask=mask)


def test_the_score_is_that_of_the_field():
    crf, emissions = CRF(4), torch.randn(6, 2, 4)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    (ranks, _) = k_best(emissions, *crf.scores(), k=2)
    tags = torch.tensor([path.labels for path in ranks]).t()
    best, second = crf.log_likelihood(emissions[:, :1].expand(-1, 2, -1), tags).tolist()
    assert best - second == pytest.approx(ranks[0].score - ranks[1].score, rel=1e-4)


def test_what_does_not_fit():
    with pytest.raises(InputError, match=r"of the same labels, received \(4, 3, 3\), \(2, 2\)"):
        viterbi(torch.zeros(4, 3, 3), torch.zeros(2, 2), torch.zeros(3), torch.zeros(3))
    with pytest.raises(InputError, match="k must be at least 1, received 0"):
        k_best(*drawn(4, 3, 3), k=0)
