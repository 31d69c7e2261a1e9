"""Gradients of several batches add up to those of a batch as large as all of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from elman.data.batches import NONE, batched
from elman.data.shards import Shard
from elman.training.loop import Trainer
from elman.training.opening import restore
from elman.training.run import Run
from elman.training.settings import TrainingSettings
from elman.training.start import start
from elman.training.task import Loss, Measure, Task

ITEMS = 22


class Weighing(Task):
    """Items that count differently, as sentences of different lengths do."""

    name, unit, headline, Settings = "weighing", "units", Measure("loss"), TrainingSettings

    def __init__(self, settings, size):
        self.settings, self.data, self.size = settings, [str(size)], size
        draw = torch.Generator().manual_seed(1)
        self.x = torch.randn(ITEMS, 3, generator=draw, dtype=torch.float64)
        self.weight = torch.randint(0, 5, (ITEMS,), generator=draw)

    @classmethod
    def prepare(cls, data, settings):
        return cls(settings, int(data[0]))

    @classmethod
    def restore(cls, settings, assets):
        return cls(settings, assets["size"])

    def assets(self):
        return {"size": self.size}

    def build(self):
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    def batches(self, part, epoch=None, shard=Shard()):  # noqa: B008
        if part != "train":
            return NONE
        return batched(range(ITEMS), self.size, list, order=epoch, shard=shard)

    def loss(self, model, batch, carry):
        x, weight = self.x[batch], self.weight[batch]
        errors = (model(x)[:, 0] - x.prod(-1)).square()
        count = int(weight.sum())
        return Loss((errors * weight).sum() / max(1, count), count)


@pytest.fixture
def train(tmp_path):
    def run(size, accumulate, stop_at=None, **changed):
        its = {"epochs": 4, "precision": "64-true", "device": "cpu", "learning_rate": 0.05}
        settings = TrainingSettings.of(its, {"accumulate": accumulate, **changed})
        path = tmp_path / f"{size}-{accumulate}-{stop_at}"
        if path.exists():
            kept = Run.open(path)
            trainer = Trainer(restore({"weighing": Weighing}, kept), kept, settings, resume=True)
        else:
            trainer = start(Weighing, [str(size)], settings, path)
        real = trainer._update

        def update(some, asked):
            done = real(some, asked)
            if trainer.position.update == stop_at and not resumed:
                trainer.save()
                raise KeyboardInterrupt
            return done

        resumed = trainer.position.update > 0
        trainer._update = update
        trainer.train()
        return trainer

    return run


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"optimizer": "sgd", "momentum": 0.9, "schedule": "cosine", "warmup": 2},
        {"clip_norm": 0.01, "l1": 1e-3, "weight_decay": 1e-2, "average": "exponential"},
        {"clip_value": 1e-3, "schedule": "linear", "average": "stochastic"},
    ],
)
@pytest.mark.parametrize(("size", "accumulate"), [(4, 2), (2, 4), (1, 8)])
def test_two_batches_are_one_of_twice_the_size(train, size, accumulate, changed):
    one = train(size * accumulate, 1, **changed)
    several = train(size, accumulate, **changed)
    # The last update of an epoch has fewer items: 22 are 8, 8 and 6.
    assert one.position.update == several.position.update == 4 * 3
    assert one.position.units == several.position.units
    for name, weight in one.model.state_dict().items():
        torch.testing.assert_close(several.model.state_dict()[name], weight, rtol=0, atol=1e-10)
    for name, weight in one.run.load_model().items():
        torch.testing.assert_close(several.run.load_model()[name], weight, rtol=0, atol=1e-10)
    for line, other in zip(one.run.metrics(), several.run.metrics(), strict=True):
        for name in ("epoch", "update", "loss", "gradient_norm", "learning_rate"):
            assert other[name] == pytest.approx(line[name], rel=1e-5), name


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_resuming_between_them_is_bit_for_bit(train, stop_at):
    whole = train(4, 2, optimizer="adam", average="exponential")
    with pytest.raises(KeyboardInterrupt):
        train(4, 2, stop_at, optimizer="adam", average="exponential")
    resumed = train(4, 2, stop_at, optimizer="adam", average="exponential")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
