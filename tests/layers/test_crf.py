from __future__ import annotations

import itertools

import pytest
import torch
import torchcrf
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from elman import CRF
from elman.errors import InputError
from elman.layers.crf import Constraints, Scores


def drawn(labels: int, constraints: Constraints | None = None, **how) -> CRF:
    crf = CRF(labels, constraints, dtype=torch.float64, **how)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_()
    return crf


def score(emissions: Tensor, path: tuple[int, ...], scores: Scores) -> Tensor:
    """score(y) of one sequence (T, L), by the definition."""
    total = emissions.new_zeros(())
    if path:
        total = total + scores.starts[path[0]] + scores.ends[path[-1]]
    for t, label in enumerate(path):
        total = total + emissions[t, label]
    for before, after in itertools.pairwise(path):
        total = total + scores.transitions[before, after]
    return total


def check(crf: CRF, emissions: Tensor, lengths: list[int], constrained: bool) -> None:
    """Compare with sums over all sequences of labels."""
    likelihoods, scores = [], crf.scores(constrained)
    for b, length in enumerate(lengths):
        paths = list(itertools.product(range(crf.labels), repeat=length))
        every = torch.stack([score(emissions[:, b], path, scores) for path in paths]).log_softmax(0)
        likelihoods.append(dict(zip(paths, every, strict=True)))
    marginals = crf.marginals(emissions, lengths)
    for b, length in enumerate(lengths):
        assert not marginals[length:, b].any()
        exact = torch.zeros(length, crf.labels, dtype=torch.float64)
        for path, value in likelihoods[b].items():
            for t, label in enumerate(path):
                exact[t, label] += float(value.exp())
        if constrained or crf.allowed_starts is None:
            torch.testing.assert_close(marginals[:length, b], exact)
    for k in range(8):
        chosen = [list(paths)[(k * 7919) % len(paths)] for paths in likelihoods]
        if any(likelihoods[b][path] == -torch.inf for b, path in enumerate(chosen)):
            continue
        tags = torch.full(emissions.shape[:2], -100)
        for b, path in enumerate(chosen):
            tags[: len(path), b] = torch.tensor(path, dtype=torch.long)
        found = crf.log_likelihood(emissions, tags, lengths)
        exact = torch.stack([likelihoods[b][path] for b, path in enumerate(chosen)])
        torch.testing.assert_close(found, exact)


SHAPES = st.tuples(st.integers(1, 3), st.lists(st.integers(0, 4), min_size=1, max_size=4))


@torch.no_grad()
@given(SHAPES, st.integers(0, 10_000))
def test_sums_over_all_sequences_are_exact(shape, seed):
    torch.manual_seed(seed)
    labels, lengths = shape
    emissions = 3 * torch.randn(max(lengths), len(lengths), labels, dtype=torch.float64)
    for b, length in enumerate(lengths):
        emissions[length:, b] = torch.nan
    check(drawn(labels), emissions, lengths, False)


CONSTRAINTS = Constraints(
    torch.tensor([[True, True, False], [False, True, True], [True, False, True]]),
    torch.tensor([True, True, False]),
    torch.tensor([False, True, True]),
)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_constraints_take_what_they_bar_out_of_the_sums(training):
    crf = drawn(3, CONSTRAINTS, constrain_training=training)
    lengths = [4, 1, 0, 3]
    check(crf, torch.randn(4, 4, 3, dtype=torch.float64), lengths, training)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_outside_librarys(dtype):
    steps, batch, labels = 12, 7, 5
    crf, other = drawn(labels).to(dtype), torchcrf.CRF(labels).to(dtype)
    names = {"transitions": "transitions", "starts": "start_transitions", "ends": "end_transitions"}
    for own, its in names.items():
        getattr(other, its).data = getattr(crf, own).detach().clone()
    emissions = (4 * torch.randn(steps, batch, labels, dtype=dtype)).requires_grad_()
    tags, lengths = torch.randint(labels, (steps, batch)), [12, 1, 5, 7, 2, 12, 3]
    mask = torch.arange(steps).unsqueeze(1) < torch.tensor(lengths)
    found = crf.log_likelihood(emissions, tags, lengths)
    expected = other(emissions, tags, mask=mask, reduction="none")
    torch.testing.assert_close(found, expected)
    weight = torch.randn(batch, dtype=dtype)
    own = torch.autograd.grad((found * weight).sum(), [emissions, *map(crf.get_parameter, names)])
    its = torch.autograd.grad(
        (expected * weight).sum(), [emissions, *map(other.get_parameter, names.values())]
    )
    for a, b in zip(own, its, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [[3, 1, 0, 2], [0, 0, 0, 0], [3, 3, 3, 3]])
@pytest.mark.parametrize("constraints", [None, CONSTRAINTS])
def test_gradients(lengths, constraints):
    crf = drawn(3, constraints, constrain_training=True)
    tags = torch.tensor([[0, 1, 0, 0], [1, 1, 0, 1], [1, 2, 1, 2]])
    names = [name for name, _ in crf.named_parameters()]

    class Likelihood(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.crf = crf

        def forward(self, emissions):
            return self.crf.log_likelihood(emissions, tags, lengths)

    def likelihood(emissions, *parameters):
        own = dict(zip([f"crf.{name}" for name in names], parameters, strict=True))
        return functional_call(Likelihood(), own, (emissions,))

    emissions = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(likelihood, (emissions, *crf.parameters()))


def test_the_padding_reaches_nothing():
    crf, lengths = drawn(3), [4, 1, 0, 2]
    clean = torch.randn(4, 4, 3, dtype=torch.float64)
    poisoned = clean.clone()
    tags = torch.randint(3, (4, 4))
    for b, length in enumerate(lengths):
        poisoned[length:, b] = torch.nan
    found = []
    for emissions in (clean, poisoned):
        emissions = emissions.clone().requires_grad_()
        value = crf.log_likelihood(emissions, tags, lengths)
        gradients = torch.autograd.grad(value.sum(), [emissions, *crf.parameters()])
        found.append([value, *gradients, crf.marginals(emissions, lengths)])
    for a, b in zip(*found, strict=True):
        assert a.isfinite().all()
        assert torch.equal(a, b)
    assert found[0][0][2] == 0


def test_a_likelihood_far_from_the_best_path_is_exact():
    # In float32, exp(200) overflows and exp(−200) is 0.
    crf = CRF(2)
    emissions = torch.tensor([[[200.0, 0.0]], [[0.0, 200.0]], [[300.0, 0.0]]]).requires_grad_()
    value = crf.log_likelihood(emissions, torch.tensor([[1], [0], [1]]))
    assert float(value.detach()) == pytest.approx(-700.0)
    value.backward()
    assert emissions.grad.abs().max() == 1
    assert crf.marginals(emissions.detach()).isfinite().all()


def test_sums_are_in_the_weights_precision():
    crf = drawn(3)
    coarse = torch.randn(5, 2, 3).bfloat16()
    tags = torch.randint(3, (5, 2))
    expected = crf.log_likelihood(coarse.double(), tags)
    assert crf.log_likelihood(coarse, tags).equal(expected)


def test_what_is_not_allowed_is_told_in_training():
    crf = drawn(3, CONSTRAINTS, constrain_training=True)
    with pytest.raises(InputError, match="the tags of sequence 1 of the batch break the constr"):
        crf.log_likelihood(torch.zeros(2, 2, 3).double(), torch.tensor([[0, 2], [1, 2]]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CRF(0), "labels must be a positive integer"),
        (lambda: CRF(4, CONSTRAINTS), r"constraints on transitions must be bool of shape \(4, 4\)"),
        (lambda: CRF(3).marginals(torch.zeros(2, 1, 4)), r"\(T, B, 3\), received \(2, 1, 4\)"),
        (
            lambda: CRF(3).log_likelihood(torch.zeros(2, 1, 3), torch.zeros(2, 2).long()),
            r"tags must have the shape \(2, 1\)",
        ),
        (
            lambda: CRF(3).log_likelihood(torch.zeros(2, 1, 3), torch.tensor([[0], [3]])),
            "tags must lie between 0 and 2, received values from 0 to 3",
        ),
    ],
)
def test_what_does_not_fit(make, words):
    with pytest.raises(InputError, match=words):
        make()
