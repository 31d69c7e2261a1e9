"""A rehearsal leaves no trace, and so resuming is bit for bit whatever a model keeps."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

import elman
from elman.data.batches import NONE, Batches
from elman.data.shards import Shard
from elman.training.loop import Trainer
from elman.training.opening import restore
from elman.training.run import Run
from elman.training.settings import TrainingSettings
from elman.training.start import start
from elman.training.task import Loss, Measure, Task


class Keeper(nn.Module):
    """Keeps what it has seen in every way that a module may."""

    def __init__(self):
        super().__init__()
        self.recurrent = elman.RNN(2, 4)
        self.norm = nn.BatchNorm1d(4)
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.register_buffer("first", None)
        self.output = nn.Linear(4, 1)
        self.modes = []

    def forward(self, x, state=None):
        y, state = self.recurrent(x, state)
        y = self.spectral(self.norm(y.flatten(0, 1)))
        if self.training:
            self.seen = self.seen + 1  # a new buffer, where BatchNorm changes its own
            self.modes.append(len(self.modes))
            if self.first is None:
                self.first = x.mean()
        drawn = torch.rand(()) + random.random() + float(np.random.rand())
        return self.output(y) + 0.01 * drawn + 1 / (1 + self.seen), state


class Keeping(Task):
    """Four windows an epoch, and one to be judged by."""

    name, unit, headline, Settings = "keeping", "steps", Measure("error"), TrainingSettings

    def __init__(self, settings):
        self.settings, self.data, self.measured = settings, ["numbers"], []

    @classmethod
    def prepare(cls, data, settings):
        return cls(settings)

    @classmethod
    def restore(cls, settings, assets):
        return cls(settings)

    def assets(self):
        return {}

    def build(self):
        return Keeper()

    def batches(self, part, epoch=None, shard=Shard()):  # noqa: B008
        if part == "test":
            return NONE
        draw = torch.Generator().manual_seed(99 if epoch is None else epoch)
        windows = list(torch.randn(1 if epoch is None else 4, 5, 3, 2, generator=draw))
        return Batches(len(windows), lambda done: iter(windows[done:]))

    def loss(self, model, batch, carry):
        y, state = model(batch, carry)
        return Loss((y - batch.sum(-1).flatten()[:, None]).square().mean(), 15, state)

    def tally(self, model, batch, carry):
        assert not model.training
        self.measured.append(model)
        return super().tally(model, batch, carry)

    def measures(self, sums):
        return {"error": sums["loss"] / sums["count"]}


def _resumed(path, settings):
    run = Run.open(path)
    return Trainer(restore({Keeping.name: Keeping}, run), run, settings, resume=True)


@pytest.fixture
def settings():
    random.seed(0)
    np.random.seed(0)
    with elman.engine("reference"):
        yield TrainingSettings(epochs=3, save_every=0.0, optimizer="adam")


def _everything(model):
    tensors = {name: t.clone() for name, t in (*model.named_parameters(), *model.named_buffers())}
    return {
        "tensors": tensors,
        "gradients": [name for name, p in model.named_parameters() if p.grad is not None],
        "modes": [m.training for m in model.modules()],
        "kept": list(model.modes),
        "draws": [torch.get_rng_state(), random.getstate(), np.random.get_state()[1]],
    }


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(_equal(a[k], b[k]) for k in a)
    return len(a) == len(b) and all(map(_equal, a, b)) if isinstance(a, (list, tuple)) else a == b


@pytest.mark.parametrize("mode", [True, False])
def test_it_leaves_no_trace(tmp_path, settings, mode):
    job = Keeping.create([], settings)
    run = Run.create(tmp_path / "run", {"task": job.name, "data": ["x"], "settings": {}})
    trainer = Trainer(job, run, settings)
    job.model.train(mode)
    before, state = _everything(job.model), trainer.optimizer.state_dict()["state"]
    trainer.rehearse()
    assert _equal(_everything(job.model), before)
    assert trainer.optimizer.state_dict()["state"] == state == {}
    # And it was one: an update's passes and an evaluation's, of a model that is another's.
    (copied,) = job.measured
    assert copied is not job.model
    assert (copied.modes, float(copied.norm.num_batches_tracked)) == ([0], 1)
    assert all(p.grad is not None for p in copied.parameters())


@pytest.mark.parametrize("stop_at", [2, 4, 7])
def test_resuming_is_bit_for_bit_whatever_a_model_keeps(tmp_path, settings, stop_at):
    """The numbers of Python and NumPy are no part of it: only torch's are kept."""
    real = Trainer._update

    def train(trainer, stop_at=None):
        def update(some, asked):
            # As a process that was never interrupted would draw them.
            random.seed(trainer.position.update)
            np.random.seed(trainer.position.update)
            done = real(trainer, some, asked)
            if trainer.position.update == stop_at:
                raise KeyboardInterrupt
            return done

        trainer._update = update
        trainer.train()
        return trainer.task.model

    whole = train(start(Keeping, ["x"], settings, tmp_path / "whole"))
    stopped = start(Keeping, ["x"], settings, tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train(stopped, stop_at)  # its last checkpoint is of the update before
    torch.manual_seed(99)
    resumed = _resumed(tmp_path / "parts", settings)
    assert resumed.position.update == stop_at - 1
    model = train(resumed)
    for name, tensor in (*whole.named_parameters(), *whole.named_buffers()):
        assert torch.equal(tensor, dict((*model.named_parameters(), *model.named_buffers()))[name])


def test_a_state_that_does_not_fit_shows_before_training(tmp_path, settings):
    trainer = start(Keeping, ["x"], settings, tmp_path / "run")
    trainer.carry = torch.zeros(1, 7, 4)  # of seven rows, where there are three
    trainer.position.window = 1
    trainer.save()
    trainer.run.unlock()
    with pytest.raises(elman.ElmanError, match=r"state.safetensors does not fit the settings"):
        _resumed(tmp_path / "run", settings)
