"""Updates that are recorded and replayed: the same training, whatever stands between them.

The CPU records no graphs. Here, what is recorded is done, undone, and done again at each replay.
"""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
import torch

from elman import nested
from elman.errors import ElmanError
from elman.tasks import restore
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings
from elman.training import graph
from elman.training.graph import Graphs
from elman.training.loop import Trainer
from elman.training.run import Run
from elman.training.start import start

TEXT = "the quick brown fox jumps over the lazy dog. " * 30


@contextmanager
def undone(graphs):
    """A block whose work on tensors is undone."""
    state = graphs.optimizer.state
    kept = [
        (t, t.detach().clone())
        for t in (
            *graphs.trainer.model.parameters(), *nested.leaves([dict(s) for s in state.values()]),
            graphs._told, graphs._at, *nested.leaves(graphs._carry),
        )
    ]  # fmt: skip
    draws = torch.get_rng_state()
    yield
    torch.set_rng_state(draws)
    with torch.no_grad():
        for tensor, before in kept:
            tensor.copy_(before)


@pytest.fixture
def replays(monkeypatch):
    """Let the CPU record; what was replayed."""
    seen = []

    def captured(self, update):
        with undone(self):
            count = update()

        def replay():
            seen.append(count)
            self.optimizer.zero_grad()  # a graph writes gradients where there are none
            with self._rates_on_device():
                update()

        return replay, count

    monkeypatch.setattr(graph, "_DEVICES", ("cpu",))
    monkeypatch.setattr(Graphs, "_captured", captured)
    return seen


@pytest.fixture
def train(tmp_path):
    book = tmp_path / "book.txt"
    book.write_text(TEXT)

    def run(name, resume=False, **changed):
        small = {"hidden": 12, "batch": 4, "steps": 10, "epochs": 6, "prompts": ["the"]}
        small |= {"sample_length": 5, "optimizer": "sgd", "learning_rate": 0.5, "device": "cpu"}
        settings = LanguageModelSettings.of(small, {"schedule": "cosine", **changed})
        if resume:
            folder = Run.open(tmp_path / name)
            trainer = Trainer(restore(folder), folder, settings, resume=True)
        else:
            trainer = start(LanguageModeling, [str(book)], settings, tmp_path / name)
        trainer.train()
        return trainer

    return run


def lines(trainer):
    """What a training told, but for times."""
    path = trainer.run.path / "metrics.jsonl"
    told = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")}
        for line in told
    ]


@pytest.mark.parametrize(
    "changed", [{}, {"dropout": 0.3, "layers": 2}, {"momentum": 0.9, "clip_norm": 0.1}], ids=str
)
def test_a_replayed_training_tells_and_learns_the_same(train, replays, changed):
    eager = train("eager", graph="off", **changed)
    assert not replays
    replayed = train("replayed", **changed)
    assert len(replays) > replayed.position.update // 2
    for one, other in zip(lines(eager), lines(replayed), strict=True):
        assert other == pytest.approx(one, rel=1e-5)
    for p, q in zip(eager.model.parameters(), replayed.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert replayed.position.units == eager.position.units


def test_a_replayed_training_goes_on(train, replays):
    whole = train("whole")
    train("parts", epochs=3)
    parts = train("parts", resume=True)
    assert [line["update"] for line in lines(parts)] == [line["update"] for line in lines(whole)]


def test_weights_that_move_are_recorded_where_they_are(train, replays, monkeypatch):
    """As a stack's do on a GPU when it first runs in one call, which may be an evaluation."""
    recorded, pools, measure = [], [], Trainer._measure
    captured = Graphs._captured

    def moving(self, *given, **how):
        measure(self, *given, **how)
        if self.position.epoch == 3:
            for p in self.model.parameters():
                p.data = p.data.clone()

    monkeypatch.setattr(Trainer, "_measure", moving)

    def pooled(self, update):
        recorded.append(self.trainer.position.epoch)
        pools.append(self._pool)
        self._pool = recorded[-1]  # as a graph leaves its own
        return captured(self, update)

    monkeypatch.setattr(Graphs, "_captured", pooled)
    train("run")
    assert pools[recorded.index(3)] is None and 3 in pools  # a pool ends with its last graph
    assert recorded.count(3) >= 2  # of an epoch's first window, and of those that go on


def test_what_diverges_among_replayed_updates_is_told_as_it_was(train, replays):
    how = {"learning_rate": 1.0, "weight_decay": 1e3, "schedule": "constant", "clip_norm": 0.0}
    told = []
    for name, choice in (("eager", "off"), ("replayed", "auto")):
        with pytest.raises(ElmanError, match="became") as error:
            train(name, graph=choice, **how)
        told.append(str(error.value).split("(epoch")[0])
    assert told[0] == told[1]
    assert replays


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"optimizer": "adagrad"}, "adagrad counts its updates on the host"),
        ({"average": "exponential"}, "`average`"),
        ({"accumulate": 2}, "several batches"),
        ({"learning": "rtrl", "hidden": 3}, "rtrl"),
        ({"graph": "off"}, "none is wanted"),
    ],
    ids=str,
)
def test_what_is_not_recorded(train, replays, changed, why):
    trainer = train("run", epochs=1, **changed)
    assert why in trainer.graphs.why
    assert not replays


def test_what_cannot_be_recorded_is_said_once(train, replays, monkeypatch, caplog):
    def fails(self, update):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Graphs, "_captured", fails)
    whole = train("run")
    assert whole.position.epoch == 6
    said = [r.message for r in caplog.records if "CUDA graph" in r.message]
    assert len(said) == 1
    assert "stream is capturing" in said[0]


def test_a_shape_that_cannot_be_recorded_leaves_the_others(train, replays, monkeypatch, caplog):
    captured, tried = Graphs._captured, []

    def fails(self, update):
        tried.append(update)
        if len(tried) == 1:
            raise RuntimeError("out of memory")
        return captured(self, update)

    monkeypatch.setattr(Graphs, "_captured", fails)
    trainer = train("run")
    assert len(tried) > 1 and replays and not trainer.graphs.why
    assert list(trainer.graphs._recorded.values()).count(None) == 1
    assert sum("out of memory" in r.message for r in caplog.records) == 1
