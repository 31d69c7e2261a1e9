"""What all studies that train share: what they draw, in which type, and how they are judged."""

from __future__ import annotations

import pytest
import torch

from elman.data.shards import Shard
from elman.studies import STUDIES, TrainedStudy
from elman.studies.long_lags import Adding, TwoSequence

TYPES = [(torch.float64, torch.float64), (torch.float32, torch.float64)]
"""PyTorch's default and the weights'."""
DRAWN = [
    name
    for name, kind in STUDIES.items()
    if issubclass(kind, TrainedStudy) and name not in ("pixel-mnist", "dynamics")
]


@pytest.mark.parametrize(("standard", "dtype"), TYPES)
@pytest.mark.parametrize("name", DRAWN)
def test_a_study_in_the_weights_type(name, standard, dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(standard)
    try:
        study = STUDIES[name](STUDIES[name].Settings())
        network = study.build().to(dtype)
        batch = study.batch(torch.Generator().manual_seed(0), 3, 12)
        study.loss(network, batch, None).value.backward()
    finally:
        torch.set_default_dtype(before)
    for parameter in network.parameters():
        if parameter.grad is not None:
            assert parameter.grad.dtype == dtype and parameter.grad.isfinite().all()


def study(kind=Adding, **given):
    return kind(kind.Settings(**{"length": 8, "batch": 4, "updates": 10, "every": 4, **given}))


def test_epochs_lie_between_checks():
    its = study()
    assert its.settings.epochs == 3
    assert [len(its.batches("train", k)) for k in range(3)] == [4, 4, 2]


def test_batches_are_one_stream_wherever_one_begins():
    whole = [batch.x for k in range(3) for batch in study(seed=3).batches("train", k)]
    assert len({float(x.sum()) for x in whole}) == 10
    draw = torch.Generator().manual_seed(3)
    again = study(seed=3)
    for x in whole:
        assert torch.equal(x, again.batch(draw, 4, 8).x)
    # After others, ahead of others, and back.
    for epoch, done, place in ((1, 2, 6), (0, 0, 0), (2, 1, 9), (0, 3, 3)):
        batch = next(iter(again.batches("train", epoch).after(done)))
        assert torch.equal(batch.x, whole[place])


@pytest.mark.parametrize("kind", [Adding, TwoSequence])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_processes_share_what_one_with_larger_batches_reads(kind, part):
    (whole, *_) = study(kind, batch=6).batches(part, 0 if part == "train" else None)
    shards = [Shard(rank, 3) for rank in range(3)]
    each = [
        next(iter(study(kind, batch=2).batches(part, 0 if part == "train" else None, shard)))
        for shard in shards
    ]
    assert sum(map(len, each)) == len(whole)
    assert torch.equal(torch.cat([batch.x for batch in each], 1), whole.x)
    assert torch.equal(torch.cat([batch.target for batch in each]), whole.target)
    if whole.lengths is not None:
        assert torch.equal(torch.cat([batch.lengths for batch in each]), whole.lengths)


def test_checks_and_test_are_the_same_for_every_seed_and_no_others():
    def first(part, seed):
        return next(iter(study(seed=seed).batches(part, 0 if part == "train" else None))).x

    assert torch.equal(first("test", 0), first("test", 1))
    assert torch.equal(first("validation", 0), first("validation", 1))
    assert not torch.equal(first("test", 0), first("validation", 0))
    assert not torch.equal(first("train", 0), first("train", 1))


def test_a_row_says_whether_the_measure_is_reached():
    training = {"updates": 1, "seconds": 0.0, "cpu": 0.0}
    for error, reached in ((Adding.reach, True), (1.01 * Adding.reach, False)):
        row = study().row({"mean_squared_error": error}, training)
        assert row == {"seed": 0, **training, "mean_squared_error": error, "reached": reached}
