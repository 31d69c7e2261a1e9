from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from elman.decoding import sample, until
from elman.decoding.sampling import choose, gumbel
from elman.errors import ElmanError, InputError


class Counter:
    """A model whose state is a count: of three tokens, it expects the one that the count names."""

    def __init__(self, scale: float = 50.0):
        self.scale = scale

    def __call__(self, tokens, state=None):
        rows = []
        for token in tokens:
            logits, state = self.step(token, state)
            rows.append(logits)
        return torch.stack(rows), state

    def step(self, token, state=None):
        count = int(token) + (0 if state is None else state["count"])
        return self.scale * torch.eye(3)[count % 3], {"count": count}


def test_the_state_goes_from_token_to_token():
    # 1, then 1 + 1 = 2, then 2 + 2 = 4 and so on, modulo 3; from a state, from there.
    prompt = torch.tensor([1])
    assert list(sample(Counter(), prompt, 5, temperature=0)) == [1, 2, 1, 2, 1]
    assert list(sample(Counter(), prompt, 3, temperature=0, state={"count": 1})) == [2, 1, 2]
    assert list(sample(Counter(), torch.tensor([1, 1]), 3, temperature=0)) == [2, 1, 2]


def test_a_seed_fixes_the_draws_and_global_randomness_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (
        list(sample(Counter(0.5), torch.tensor([1]), 40, seed=seed)) for seed in (3, 3, 4)
    )
    assert first == again != other
    assert list(sample(Counter(0.5), torch.tensor([1]), 40)) != first
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_barred_is_never_drawn():
    drawn = set(sample(Counter(0.0), torch.tensor([1]), 100, seed=0, barred=[1]))
    assert drawn == {0, 2}


def test_tokens_are_drawn_when_they_are_asked_for():
    assert len(list(itertools.islice(sample(Counter(), torch.tensor([1]), 10**9), 5))) == 5


def test_draws_follow_the_probabilities():
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf])
    draw = torch.Generator().manual_seed(0)
    for temperature in (0.5, 1.0, 2.0):
        counts, noise = torch.zeros(4), gumbel(4, draw)
        for _ in range(4000):
            counts[choose(logits, next(noise), temperature)] += 1
        assert torch.allclose(counts / 4000, (logits / temperature).softmax(-1), atol=0.03)


def test_top_k_and_top_p_cut_the_tail():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    noise = gumbel(4, torch.Generator().manual_seed(0))

    def drawn(**how):
        return {int(choose(logits, next(noise), **how)) for _ in range(400)}

    assert drawn() == {0, 1, 2, 3}
    assert drawn(top_k=2) == {0, 1}
    assert drawn(top_k=10) == {0, 1, 2, 3}
    assert drawn(top_p=0.5) == {0}
    assert drawn(top_p=0.51) == {0, 1}
    assert drawn(top_p=0.9) == {0, 1, 2}
    assert drawn(top_p=1e-9) == {0}
    assert drawn(top_k=3, top_p=0.99) == {0, 1, 2}


def test_a_stop_ends_the_text_wherever_the_pieces_are_cut():
    for cut in range(1, 9):
        text = "one two three"
        pieces = [text[begin : begin + cut] for begin in range(0, len(text), cut)]
        assert "".join(until(iter(pieces), "o t")) == "one tw"
        assert "".join(until(iter(pieces), "three!")) == "one two three"
        assert "".join(until(iter(pieces), "one")) == ""


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"length": 0}, "length must be at least 1, received 0"),
        ({"temperature": -1}, "temperature must lie between 0 and 1,000,000, received -1"),
        (
            {"temperature": float("nan")},
            "temperature must lie between 0 and 1,000,000, received nan",
        ),
        ({"top_k": 0}, "top_k must be at least 1, received 0"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], received 0"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_settings_out_of_bounds(how, words):
    with pytest.raises(InputError, match=words):
        sample(Counter(), torch.tensor([1]), **{"length": 3} | how)


def test_an_empty_stop():
    with pytest.raises(InputError, match="stop must be a text"):
        until(iter("abc"), "")


def test_a_model_that_has_diverged():
    class Diverged(Counter):
        def step(self, token: Tensor, state=None):
            return torch.full((3,), torch.nan), state

    with pytest.raises(ElmanError, match="diverged"):
        next(sample(Diverged(), torch.tensor([1]), 5))
