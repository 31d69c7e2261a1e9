"""A rehearsal leaves no trace, and so resuming is bit for bit whatever a model keeps."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

import elman
from elman.training.loop import Trainer
from elman.training.run import Run
from elman.training.settings import TrainingSettings
from elman.training.start import start
from elman.training.task import Task


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
    """Four windows an epoch."""

    name, unit, headline, Settings = "keeping", "steps", "error", TrainingSettings
    data = ("numbers",)

    def __init__(self, settings):
        torch.manual_seed(3)
        self.settings, self.model, self.rehearsed = settings, Keeper(), []

    @classmethod
    def prepare(cls, data, settings):
        return cls(settings)

    @classmethod
    def restore(cls, run):
        return cls(TrainingSettings.of(run.config["settings"]))

    def save(self, run):
        run.config["checksums"] = [1]
        run.reconfigure(run.config["settings"])

    def windows(self, epoch):
        return 4

    def read(self, epoch, start):
        draw = torch.Generator().manual_seed(epoch)
        windows = list(torch.randn(4, 5, 3, 2, generator=draw))
        return iter(windows[start:])

    def loss(self, model, window, state):
        y, state = model(window, state)
        return (y - window.sum(-1).flatten()[:, None]).square().mean(), state

    def count(self, window):
        return 15

    def validate(self):
        return None

    def rehearse_evaluation(self):
        assert not self.model.training
        self.rehearsed.append(self.model)

    def evaluate(self, data=None):
        return {}

    def describe(self, loss):
        return {"error": loss}


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
    job = Keeping(settings)
    run = Run.create(tmp_path / "run", {"task": job.name, "data": ["x"], "settings": {}})
    trainer = Trainer(job, run, settings)
    job.model.train(mode)
    before, state = _everything(job.model), trainer.optimizer.state_dict()["state"]
    trainer.rehearse()
    assert _equal(_everything(job.model), before)
    assert trainer.optimizer.state_dict()["state"] == state == {}
    # And it was one: an update's passes and an evaluation's, of a model that is another's.
    (copied,) = job.rehearsed
    assert copied is not job.model
    assert (copied.modes, float(copied.norm.num_batches_tracked)) == ([0], 1)
    assert all(p.grad is not None for p in copied.parameters())


@pytest.mark.parametrize("stop_at", [2, 4, 7])
def test_resuming_is_bit_for_bit_whatever_a_model_keeps(tmp_path, settings, stop_at):
    """The numbers of Python and NumPy are no part of it: only torch's are kept."""
    real = Trainer._update

    def train(trainer, stop_at=None):
        def update(window):
            # As a process that was never interrupted would draw them.
            random.seed(trainer.position.update)
            np.random.seed(trainer.position.update)
            real(trainer, window)
            if trainer.position.update == stop_at:
                raise KeyboardInterrupt

        trainer._update = update
        trainer.train()
        return trainer.task.model

    whole = train(start(Keeping, ["x"], settings, tmp_path / "whole"))
    stopped = start(Keeping, ["x"], settings, tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train(stopped, stop_at)  # its last checkpoint is of the update before
    run = Run.open(tmp_path / "parts")
    torch.manual_seed(99)
    resumed = Trainer(Keeping.restore(run), run, settings, resume=True)
    assert resumed.position.update == stop_at - 1
    model = train(resumed)
    for name, tensor in (*whole.named_parameters(), *whole.named_buffers()):
        assert torch.equal(tensor, dict((*model.named_parameters(), *model.named_buffers()))[name])


def test_a_state_that_does_not_fit_shows_before_training(tmp_path, settings):
    trainer = start(Keeping, ["x"], settings, tmp_path / "run")
    trainer.state = torch.zeros(1, 7, 4)  # of seven rows, where there are three
    trainer.position.window = 1
    trainer._save()
    trainer.run.unlock()
    run = Run.open(tmp_path / "run")
    with pytest.raises(elman.ElmanError, match=r"state.safetensors does not fit the settings"):
        Trainer(Keeping.restore(run), run, settings, resume=True)
