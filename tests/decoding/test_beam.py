from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import elman
from elman.decoding import Hypothesis, beam, draw
from elman.errors import ElmanError, InputError

SIZE, START, END = 4, 3, 0


class Decoder(nn.Module):
    """A small decoder of an encoder–decoder: two states, attention to a memory."""

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        made = {"dtype": torch.float64}
        self.embedding = nn.Embedding(SIZE, 5, **made)
        self.recurrent = elman.LSTM(5, 6, num_layers=2, **made)
        self.attention = elman.Attention(6, 3, **made)
        self.output = nn.Linear(9, SIZE, **made)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(std=2.0)

    def state(self, memory: Tensor, lengths: Any = None) -> dict[str, Any]:
        return {
            "recurrent": self.recurrent.initial_state(memory.shape[1]),
            "memory": self.attention.prepare(memory, lengths),
            "weights": memory.new_zeros(memory.shape[1], len(memory)),
        }

    def forward(self, tokens: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        h, recurrent = self.recurrent.step(self.embedding(tokens), state["recurrent"])
        context, weights = self.attention(h, state["memory"])
        logits = self.output(torch.cat([h, context], -1))
        return logits, state | {"recurrent": recurrent, "weights": weights}


def memories(batch: int, seed: int = 1) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(5, batch, 3, generator=draws, dtype=torch.float64)


def starts(batch: int) -> Tensor:
    return torch.full((batch,), START)


@torch.no_grad()
def log_probability(models: list[Decoder], memory: Tensor, tokens: list[int]) -> float:
    """log P of one sequence and its end, by the definition."""
    states, last, total = [m.state(memory) for m in models], START, 0.0
    for token in [*tokens, END]:
        probability = torch.zeros((), dtype=torch.float64)
        for k, model in enumerate(models):
            logits, states[k] = model(torch.tensor([last]), states[k])
            probability = probability + logits[0].softmax(-1)[token] / len(models)
        total, last = total + float(probability.log()), token
    return total


def every(
    models: list[Decoder], memory: Tensor, most: int, alpha: float = 0.0, keep: Any = None
) -> list[tuple[float, list[int]]]:
    """All sequences of at most so many tokens, the best first."""
    written = [t for t in range(SIZE) if t != END]
    found = []
    for length in range(most + 1):
        for tokens in map(list, itertools.product(written, repeat=length)):
            if keep is None or keep(tokens):
                score = log_probability(models, memory, tokens)
                found.append((score / ((6 + length) / 6) ** alpha, tokens))
    return sorted(found, reverse=True)


@torch.no_grad()
def greedy(model: Decoder, memory: Tensor, most: int) -> list[int]:
    state, last, tokens = model.state(memory), START, []
    while len(tokens) < most:
        logits, state = model(torch.tensor([last]), state)
        last = int(logits.argmax())
        if last == END:
            break
        tokens.append(last)
    return tokens


def ranked(hypotheses: list[Hypothesis]) -> list[list[int]]:
    return [h.tokens for h in hypotheses]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("models", [1, 2])
def test_a_beam_as_wide_as_there_are_sequences_finds_the_best_of_all(alpha, models):
    decoders, memory = [Decoder(seed) for seed in range(models)], memories(3)
    states = [d.state(memory) for d in decoders]
    step, state = (decoders, states) if models > 1 else (decoders[0], states[0])
    found = beam(step, state, starts(3), END, SIZE**4, max_length=3, n_best=6, length_penalty=alpha)
    for k, hypotheses in enumerate(found):
        best = every(decoders, memory[:, k : k + 1], 3, alpha)[:6]
        assert ranked(hypotheses) == [tokens for _, tokens in best]
        for hypothesis, (score, tokens) in zip(hypotheses, best, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-10)
            own = log_probability(decoders, memory[:, k : k + 1], tokens)
            assert hypothesis.log_probability == pytest.approx(own, abs=1e-10)


@pytest.mark.parametrize("seed", [0, 2, 3, 4])
def test_a_width_of_one_takes_the_likeliest_always(seed):
    model, memory = Decoder(seed), memories(8)
    found = beam(model, model.state(memory), starts(8), END, 1, max_length=7)
    drawn = draw(model, model.state(memory), starts(8), END, max_length=7, temperature=0)
    expected = [greedy(model, memory[:, k : k + 1], 7) for k in range(8)]
    assert [h.tokens for (h,) in found] == expected == ranked(drawn)
    assert len({len(tokens) for tokens in expected}) > 2  # or nothing ended beside others
    for (beamed,), one in zip(found, drawn, strict=True):
        assert beamed.log_probability == pytest.approx(one.log_probability)


def test_the_score_grows_with_the_width():
    model, memory = Decoder(2), memories(20)
    scores = [
        sum(h.score for (h,) in beam(model, model.state(memory), starts(20), END, w, max_length=6))
        for w in (1, 2, 4, 300)
    ]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


def test_a_sentence_is_alone_in_its_batch():
    model, lengths = Decoder(1), [5, 0, 3, 1, 4, 2]
    memory = memories(6)
    for k, length in enumerate(lengths):
        memory[length:, k] = torch.nan
    how = {"n_best": 3, "length_penalty": 0.6, "record": lambda state: state["weights"]}
    most = [2, 8, 3, 5, 8, 1]
    together = beam(model, model.state(memory, lengths), starts(6), END, 4, max_length=most, **how)
    for k in range(6):
        one = model.state(memory[:, k : k + 1], lengths[k : k + 1])
        (alone,) = beam(model, one, starts(1), END, 4, max_length=most[k], **how)
        assert ranked(alone) == ranked(together[k])
        for a, b in zip(alone, together[k], strict=True):
            torch.testing.assert_close(a.record, b.record)
            assert a.score == pytest.approx(b.score)


def test_what_was_recorded_is_that_of_the_path():
    model, memory = Decoder(3), memories(4)
    found = beam(
        model, model.state(memory), starts(4), END, 5, max_length=6, n_best=5,
        record=lambda state: state["weights"],
    )  # fmt: skip
    for k, hypotheses in enumerate(found):
        for hypothesis in hypotheses:
            state, weights = model.state(memory[:, k : k + 1]), []
            for token in [START, *hypothesis.tokens]:
                _, state = model(torch.tensor([token]), state)
                weights.append(state["weights"][0])
            torch.testing.assert_close(hypothesis.record, torch.stack(weights))


def is_without_pairs(tokens: list[int]) -> bool:
    pairs = list(itertools.pairwise(tokens))
    return len(pairs) == len(set(pairs))


def test_what_may_not_be_written_is_not():
    model, memory = Decoder(0), memories(2)

    def best(**how):
        state = model.state(memory)
        return beam(model, state, starts(2), END, 400, max_length=4, n_best=5, **how)

    def expected(keep):
        ranks = [every([model], memory[:, k : k + 1], 4, keep=keep) for k in range(2)]
        return [[tokens for _, tokens in rank[:5]] for rank in ranks]

    def rising(sentences: Tensor, tokens: Tensor) -> Tensor:
        allowed = torch.ones(len(tokens), SIZE, dtype=torch.bool)
        if tokens.shape[1]:
            allowed = torch.arange(SIZE) >= tokens[:, -1:]
        allowed[:, END] = True
        return allowed

    assert [ranked(h) for h in best(min_length=2)] == expected(lambda y: len(y) >= 2)
    assert [ranked(h) for h in best(no_repeat=2)] == expected(is_without_pairs)
    assert [ranked(h) for h in best(no_repeat=1)] == expected(lambda y: len(y) == len(set(y)))
    mask = torch.tensor([True, True, False, True])
    assert [ranked(h) for h in best(allowed=mask)] == expected(lambda y: 2 not in y)
    assert [ranked(h) for h in best(allowed=rising)] == expected(lambda y: y == sorted(y))
    each = torch.stack([mask, torch.ones(4, dtype=torch.bool)])
    first, second = [ranked(h) for h in best(allowed=each)]
    assert first == expected(lambda y: 2 not in y)[0]
    assert second == expected(lambda y: True)[1]


def test_where_nothing_may_end_there_is_no_hypothesis():
    model, memory = Decoder(0), memories(2)
    allowed = torch.ones(2, SIZE, dtype=torch.bool)
    allowed[1, END] = False
    found = beam(model, model.state(memory), starts(2), END, 3, max_length=4, allowed=allowed)
    assert [len(h) for h in found] == [1, 0]
    drawn = draw(model, model.state(memory), starts(2), END, max_length=4, allowed=allowed)
    assert drawn[0].log_probability > -torch.inf == drawn[1].log_probability


def test_log_probabilities_do_as_logits_do():
    model, memory = Decoder(0), memories(2)

    def normalised(tokens, state):
        logits, state = model(tokens, state)
        return logits.log_softmax(-1), state

    one, other = (
        beam(step, model.state(memory), starts(2), END, 3, max_length=4)
        for step in (model, normalised)
    )
    assert [ranked(h) for h in one] == [ranked(h) for h in other]


def test_what_a_step_hands_on_is_not_copied():
    model, seen = Decoder(1), set()

    def step(tokens, state):
        seen.add((len(tokens), state["memory"].values.data_ptr()))
        return model(tokens, state)

    memory = memories(3)
    found = beam(step, model.state(memory), starts(3), END, 2, max_length=8)
    steps = 1 + max(len(h.tokens) for (h,) in found)
    # A place in memory for each number of sentences that there were at once.
    assert len(seen) == len({rows for rows, _ in seen}) < steps


def test_a_state_that_changes_late_is_moved():
    """A leaf handed on for some steps, and then not, follows its hypothesis from there."""
    table = torch.randn(SIZE, SIZE, dtype=torch.float64)

    def step(tokens, state):
        count, history = state["count"] + 1, state["history"]
        if int(count[0]) % 2 == 0:
            history = history + tokens.unsqueeze(-1).double() * count
        return table[tokens] + torch.cos(history * torch.arange(SIZE)), {
            "count": count, "history": history,
        }  # fmt: skip

    start = {"count": torch.zeros(1, 1), "history": torch.zeros(1, 1, dtype=torch.float64)}
    (found,) = beam(step, start, starts(1), END, 6, max_length=5, n_best=6)
    for hypothesis in found:
        state, total, last = start, 0.0, START
        for token in [*hypothesis.tokens, END]:
            logits, state = step(torch.tensor([last]), state)
            total, last = total + float(logits[0].log_softmax(-1)[token]), token
        assert hypothesis.log_probability == pytest.approx(total)


def test_draws_follow_the_model_and_their_own_seed():
    model, memory = Decoder(0), memories(1)
    count = 600
    drawn = draw(
        model, model.state(memory.expand(-1, count, -1)), starts(count), END, max_length=2,
        seeds=range(count),
    )  # fmt: skip
    for score, tokens in every([model], memory, 2):
        # At the greatest length the end is certain to come, whatever it costs.
        share = sum(h.tokens == tokens for h in drawn) / count
        if len(tokens) < 2:
            assert share == pytest.approx(float(torch.tensor(score).exp()), abs=0.06)
        assert all(h.log_probability == pytest.approx(score) for h in drawn if h.tokens == tokens)
    some = draw(
        model, model.state(memory.expand(-1, 3, -1)), starts(3), END, max_length=2,
        seeds=[7, 599, 40],
    )  # fmt: skip
    assert ranked(some) == [drawn[k].tokens for k in (7, 599, 40)]


def test_no_sentences():
    model = Decoder()
    assert beam(model, model.state(memories(0)), starts(0), END, 3, max_length=4) == []
    assert draw(model, model.state(memories(0)), starts(0), END, max_length=4) == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"width": 0}, "`width` must be at least 1, received 0"),
        ({"n_best": 4}, "`n_best` must lie between 1 and the beam's width, 3, received 4"),
        ({"length_penalty": -1.0}, "`length_penalty` must be at least 0, received -1"),
        ({"max_length": 0}, "`max_length` must be at least 1"),
        ({"min_length": 5}, "lie between 0 and it, received 4 and 5"),
        ({"no_repeat": -1}, "`no_repeat` must be at least 0"),
        ({"step": [None, None]}, "several models need a list of as many states"),
    ],
)
def test_settings_out_of_bounds(how, words):
    given: dict[str, Any] = {"step": None, "width": 3, "max_length": 4, **how}
    step = given.pop("step") or Decoder()
    with pytest.raises(InputError, match=words):
        beam(step, {}, starts(1), END, given.pop("width"), **given)


def test_a_model_that_has_diverged():
    with pytest.raises(ElmanError, match="diverged"):
        beam(lambda tokens, state: (torch.full((len(tokens), 4), torch.nan), state), None,
             starts(2), END, 2, max_length=3)  # fmt: skip
