from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import elman
from elman.data.shards import Shard
from elman.tasks.language_model import evaluation
from elman.tasks.language_model.network import LanguageModel, LanguageModelSettings
from elman.tasks.language_model.task import LanguageModeling
from elman.training.memory import Memory


@pytest.fixture(autouse=True)
def _eager():
    with elman.engine("reference"):
        yield


def _evaluated(model, tokens, at_a_time, shard=Shard()):  # noqa: B008
    """The sum of -log P and the count that a job with such updates finds."""
    job = LanguageModeling(LanguageModelSettings(batch=at_a_time, steps=1), None, [])
    job.model, found = model, {"loss": 0.0, "count": 0}
    batches = evaluation.passages([("text", tokens)], at_a_time, shard)
    job.measure(model, batches, lambda sums: found.update(sums) or found)
    return found["loss"], found["count"]


@pytest.mark.parametrize(("at_a_time", "rows"), [(1, 1), (2, 4), (7, 4), (64, 4), (10_000, 1)])
def test_the_result_does_not_depend_on_how_much_is_read_at_a_time(monkeypatch, at_a_time, rows):
    monkeypatch.setattr(evaluation, "_TOKENS_A_ROW", 150 // rows)
    monkeypatch.setattr(evaluation, "_ROWS", rows)
    torch.manual_seed(0)
    model = LanguageModel(9, LanguageModelSettings(hidden=5, embedding=4)).double().eval()
    tokens = np.random.default_rng(0).integers(0, 9, 150)
    # Row by row, each from the start: what a row's first token lacks is its past.
    length, expected = -(-149 // rows), 0.0
    ids = torch.from_numpy(tokens)
    for first in range(0, 149, length):
        part = ids[first : first + length + 1]
        with torch.no_grad():
            logits, _ = model(part[:-1, None])
        expected += float(cross_entropy(logits[:, 0], part[1:], reduction="sum"))
    nats, count = _evaluated(model, tokens, at_a_time)
    assert (nats, count) == (pytest.approx(expected, rel=1e-12), 149)
    # Three processes, of which some have no row where there are fewer: their sums add up.
    ranks = [_evaluated(model, tokens, at_a_time, Shard(k, 3)) for k in range(3)]
    assert tuple(map(sum, zip(*ranks, strict=True))) == (pytest.approx(expected, rel=1e-12), 149)


def test_no_more_tokens_at_a_time_than_an_update_has(monkeypatch):
    monkeypatch.setattr(evaluation, "_TOKENS_A_ROW", 10)
    model = LanguageModel(9, LanguageModelSettings(hidden=5)).eval()
    tokens = np.zeros(1000, np.int64)
    read, predicted = [], []
    real_read, real_nats = model.read, model.nats
    monkeypatch.setattr(model, "read", lambda x, s: read.append(x.numel()) or real_read(x, s))
    monkeypatch.setattr(model, "nats", lambda y, t: predicted.append(len(y)) or real_nats(y, t))
    for at_a_time in (100, 32, 20):
        read.clear()
        predicted.clear()
        _evaluated(model, tokens, at_a_time)
        assert max(predicted) <= at_a_time / 2
        # 32 rows are read side by side, of each a step at least.
        assert max(read) <= max(32, at_a_time)


def test_it_takes_less_memory_than_an_update():
    size, update = 20_000, torch.randint(20_000, (21, 8))
    settings = LanguageModelSettings(cell="rnn", hidden=4, embedding=4)
    model = LanguageModel(size, settings)
    tokens = np.random.default_rng(0).integers(0, size, 1500)

    def learn():
        model.zero_grad()
        logits, _ = model.train()(update[:-1])
        cross_entropy(logits.flatten(0, 1), update[1:].flatten()).backward()

    def peak(run):
        run()
        # What other tests have freed would be taken again, and no peak would be seen.
        getattr(ctypes.CDLL(None), "malloc_trim", bool)(0)
        memory = Memory()
        run()
        return memory.peak()

    if peak(learn) is None:
        pytest.skip("the resident memory of a process is read on Linux alone")
    # Over many windows, because what the allocator does not give back counts, too.
    model.eval()
    evaluated = peak(lambda: _evaluated(model, tokens, 160))
    assert evaluated <= peak(learn)
