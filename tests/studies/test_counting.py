"""Counting: strings, and exact judgement."""

from __future__ import annotations

import pytest
import torch

from elman.data.shards import Shard
from elman.studies.counting import AnBn, AnBnCn


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("study", "letters"), [(AnBn, "ab"), (AnBnCn, "abc")])
def test_counting_strings(study, letters):
    text, legal = study(study.Settings()).string(3)
    assert text == "S" + "".join(letter * 3 for letter in letters) + "T"
    after_a, after_b = [{"a", "b"}] * 3, [{"b"}] * 2
    if study is AnBn:
        assert legal == [{"a"}, *after_a, *after_b, {"T"}]
    else:
        assert legal == [{"a"}, *after_a, *after_b, *[{"c"}] * 3, {"T"}]


def test_counting_draws_every_n_and_judges_exactly():
    study = AnBn(AnBn.Settings(length=4))
    batch = study.batch(drawn(), 200, 4)
    assert {int(n) for n in batch.lengths} == {3, 5, 7, 9}

    class Oracle(torch.nn.Module):
        """Right up to n = 70, and wrong at one symbol of n = 71."""

        def forward(self, batch):
            y = batch.target * 2 - 1
            for k, length in enumerate(batch.lengths.tolist()):
                if length == 2 * 71 + 1:
                    y[length - 1, k, 0] = 1.0
            return y

    def judged(part, length):
        study = AnBn(AnBn.Settings(length=length))
        return study.measure(Oracle(), study.batches(part))["right_up_to_n"]

    assert judged("test", 4) == 70
    assert judged("validation", 200) == 70
    # What training sees and what its checks see is n ≤ length; no score there ends it early.
    assert judged("validation", 60) == 60 and judged("validation", 4) == 4
    assert study.goal is None
    assert float(study.loss(Oracle(), batch, None).value) == 0
    one_wrong = float(study.loss(Oracle(), study.strings(range(70, 72)), None).value)
    assert one_wrong == pytest.approx(2**2 / (4 * (141 + 143)))


def test_one_process_counts_for_all():
    study = AnBn(AnBn.Settings())
    others = list(study.batches("test", None, Shard(1, 2)))
    assert len(others) == len(study.batches("test")) and not any(others)
    assert all(len(batch) for batch in study.batches("validation", None, Shard(0, 2)))
