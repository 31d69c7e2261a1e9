"""Whatever is wrong in a run's files is told before anything is computed with it."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from safetensors.torch import save

import elman
from elman.errors import ElmanError
from elman.learning import OPTIMIZERS
from elman.tasks import open_run, restore
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings
from elman.training import storage
from elman.training.loop import Trainer
from elman.training.report import Report
from elman.training.run import Run
from elman.training.start import start
from elman.training.watch import read_log

TEXT = "the quick brown fox jumps over the lazy dog. " * 30
SMALL = {"cell": "rnn", "hidden": 5, "batch": 4, "steps": 10, "epochs": 1, "prompts": ["the"]}
SMALL |= {"sample_length": 3, "optimizer": "adam"}


@pytest.fixture(scope="module", autouse=True)
def _eager():
    with elman.engine("reference"):
        yield


def _train(folder, **changed):
    (folder / "book.txt").write_text(TEXT)
    settings = LanguageModelSettings.of(SMALL, changed)
    trainer = start(LanguageModeling, [str(folder / "book.txt")], settings, folder / "run")
    trainer.settings.seconds = 1e-9  # one update
    trainer.train()
    trainer.save()
    assert trainer.position.window == 1
    return folder / "run"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return _train(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return Run.open(tmp_path / "run")


def _resume(run, **changed):
    settings = LanguageModelSettings.of(run.config["settings"], changed)
    return Trainer(restore(run), run, settings, resume=True)


def _set(*path, to):
    """Put a value, or what becomes of the present one, at a place of the checkpoint."""

    def change(state):
        *outer, last = path
        for part in outer:
            state = state[part]
        state[last] = to(state[last]) if callable(to) else to

    return change


def _drop(*path):
    def change(state):
        *outer, last = path
        for part in outer:
            state = state[part]
        del state[last]

    return change


def _swap(state):
    averages = state["optimizer"]["state"][0]
    averages["exp_avg"], averages["exp_avg_sq"] = averages["exp_avg_sq"], averages["exp_avg"]


def _nan(tensor):
    return tensor * math.nan


FIRST = ("optimizer", "state", 0)
DAMAGE = {
    "'position.window' is 'x', expected a whole number": _set("position", "window", to="x"),
    "'position.window' is True": _set("position", "window", to=True),
    "'position.window' is beyond the data": _set("position", "window", to=10**6),
    "'position.epoch' is -1": _set("position", "epoch", to=-1),
    "'position.update' is 9223372036854775808": _set("position", "update", to=2**63),
    "'position.seconds' is nan, expected a finite": _set("position", "seconds", to=math.nan),
    "'position.norm' is missing": _drop("position", "norm"),
    "'position.more' is unknown": lambda state: state["position"].update(more=1),
    r"'position' is \[1\], expected values by name": _set("position", to=[1]),
    "'model.output.bias' has infinite numbers": _set("model", "output.bias", to=_nan),
    "'model.output.bias' is a tensor .* of int64, expected a tensor .* of float32": _set(
        "model", "output.bias", to=torch.Tensor.long
    ),
    r"'model.output.bias' is a tensor \(3,\)": _set("model", "output.bias", to=torch.zeros(3)),
    "'model.output.weight' is missing": _drop("model", "output.weight"),
    "'optimizer.state.0.exp_avg_sq' has -.*, expected no less than 0": _swap,
    "'optimizer.state.0.exp_avg' is a tensor": _set(*FIRST, "exp_avg", to=lambda t: t[:1]),
    "'optimizer.state.0.exp_avg' has infinite": _set(*FIRST, "exp_avg", to=lambda t: t / 0),
    "'optimizer.state.0.step' has": _set(*FIRST, "step", to=_nan),
    "'optimizer.state.99' is of no parameter": lambda state: state["optimizer"]["state"].update(
        {99: {}}
    ),
    "'optimizer.state.0.exp_avg' is missing": _drop(*FIRST, "exp_avg"),
    "'optimizer.state' is 5": _set("optimizer", "state", to=5),
    "'optimizer.param_groups' is of other": _set(
        "optimizer", "param_groups", to=lambda groups: groups[:1]
    ),
    "'schedule.best' is nan": _set("schedule", "best", to=math.nan),
    "'stopping.waited' is 1.5": _set("stopping", "waited", to=1.5),
    "'own.carry' has NaN": _set("own", "carry", to=_nan),
    "'own.carry' is 'x'": _set("own", "carry", to="x"),
    "the state h must have the shape": _set("own", "carry", to=lambda t: t[:, :1]),
    "'own.random' is a tensor": _set("own", "random", to=torch.zeros(4)),
    "'own.random' cannot be used": _set("own", "random", to=torch.zeros_like),
    "'own.random' is missing": _drop("own", "random"),
    "'own.sums.loss' is None": _set("own", "sums", "loss", to=None),
    "'own.sums.count' is missing": _drop("own", "sums", "count"),
    "'average.means.recurrent.weight_ih_l0' is missing": _set(
        "average", "means", to={"output.weight": torch.zeros(30, 5)}
    ),
    "'average.count' is -1": _set("average", "count", to=-1),
    "'average.kind' is missing": _drop("average", "kind"),
    "it was trained by 2 processes": _set("processes", to=2),
    "'processes' is 0": _set("processes", to=0),
}


@pytest.mark.parametrize("words", DAMAGE)
def test_a_checkpoint_is_checked_before_it_is_used(run, words):
    state = run.load_checkpoint()
    DAMAGE[words](state)
    run.save_checkpoint(state)
    before = run.checkpoint.read_bytes()
    told = rf"state.safetensors does not fit the settings of its run \(.*{words}"
    with pytest.raises(ElmanError, match=told) as caught:
        _resume(run)
    assert "\n" not in str(caught.value)
    assert run.checkpoint.read_bytes() == before
    run.lock()  # nobody holds it any more
    run.unlock()


def test_damage_to_the_text_of_a_checkpoint(run):
    for plain in ("[" * 50_000, '{"a": ' + "9" * 5000 + "}", '{"$tensor": []}', "{}", "5"):
        run.checkpoint.write_bytes(save({"t": torch.ones(1)}, metadata={"state": plain}))
        with pytest.raises(ElmanError, match=r"state.safetensors is damaged"):
            run.load_checkpoint()
    run.checkpoint.write_bytes(save({"t": torch.ones(1)}))
    with pytest.raises(ElmanError, match=r"state.safetensors is damaged"):
        run.load_checkpoint()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_every_optimizer_keeps_is_known(tmp_path, name):
    momentum = 0.9 if name in ("sgd", "rmsprop") else 0.0
    path = _train(tmp_path, optimizer=name, momentum=momentum)
    resumed = _resume(Run.open(path))
    kept = resumed.optimizer.state_dict()["state"]
    assert (resumed.position.update, len(kept)) == (1, 6)
    assert all(values for values in kept.values())


def test_an_option_that_only_the_checkpoint_has_is_not_taken(run):
    state = run.load_checkpoint()
    for group in state["optimizer"]["param_groups"]:
        group["betas"], group["eps"] = (math.nan, 5.0), "x"
    run.save_checkpoint(state)
    (first, second) = _resume(run).optimizer.param_groups
    assert first["betas"] == second["betas"] == (0.9, 0.999)
    assert first["eps"] == 1e-8


WEIGHTS = {
    "has infinite numbers or NaN": _nan,
    "of bool, expected a tensor": torch.Tensor.bool,
    "of int64, expected a tensor": torch.Tensor.long,
    "of complex64, expected a tensor": lambda t: t.to(torch.complex64),
    r"is a tensor \(1, \d+\) of float32, expected a tensor \(\d+,\)": lambda t: t[None],
}


@pytest.mark.parametrize("words", WEIGHTS)
def test_weights_are_checked_before_they_are_used(run, words):
    weights = run.load_model()
    run.save_model({**weights, "output.bias": WEIGHTS[words](weights["output.bias"])})
    with pytest.raises(
        ElmanError, match=f"model.safetensors does not fit.*'output.bias' .*{words}"
    ):
        open_run(run.path, "cpu")
    # Another precision is the same kind of number.
    run.save_model({**weights, "output.bias": weights["output.bias"].double()})
    assert open_run(run.path, "cpu").model.output.bias.dtype == torch.float32


DEEP, LONG = "[" * 50_000, "9" * 5000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", DEEP, "nested too deeply"),
        ("config.json", LONG, "Exceeds the limit"),
        ("config.json", '{"format": 2}', "'task' is missing"),
        ("assets/vocabulary.json", DEEP, "nested too deeply"),
        ("assets/vocabulary.json", LONG, "Exceeds the limit"),
        (
            "assets/vocabulary.json",
            '{"kind": "character", "tokens": [1]}',
            "the character vocabulary has",
        ),
        (
            "assets/vocabulary.json",
            '{"kind": "bpe", "tokenizer": [[]]}',
            "the bpe vocabulary cannot be",
        ),
    ],
)
def test_files_that_say_something_else(run, name, content, words):
    (run.path / name).write_text(content)
    # What the job finds wrong with what it gave is of the folder, and says whose it is.
    where = "assets" if "vocabulary" in words else name
    with pytest.raises(ElmanError, match=rf"{where} is damaged.*{words}") as caught:
        open_run(run.path, "cpu")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_a_vocabulary_that_is_missing_is_named(run):
    (run.path / "assets" / "vocabulary.json").unlink()
    with pytest.raises(ElmanError, match="run/assets is damaged: 'vocabulary' is missing: restore"):
        open_run(run.path, "cpu")
    (run.path / "assets").rmdir()
    with pytest.raises(ElmanError, match="run/assets is missing: expected the folder of a run"):
        open_run(run.path, "cpu")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("format", True, "'format' is True, expected a whole number"),
        ("data", ["a\0b"], r"'data\[0\]' is 'a.x00b', expected a text"),
        ("data", [5], r"'data\[0\]' is 5, expected a text"),
        ("fingerprints", {"book": "x"}, "'fingerprints.book' is 'x', expected a whole number"),
        ("fingerprints", [1], r"'fingerprints' is \[1\], expected values by name"),
        ("settings", [], r"'settings' is \[\], expected values by name"),
        ("settings", {"hidden": 2**70}, "hidden must be less than 2147483648"),
        ("settings", {"hidden": "x" * 999}, r"hidden must be an integer, received 'x+\.\.\.x+'"),
        ("settings", {"hidden": 10**6, "cell": "lstm"}, "need 3.2e.04 GB, and this machine has"),
    ],
)
def test_configurations_that_say_something_else(run, key, value, words):
    config = storage.read_json(run.path / "config.json")
    storage.write_json(run.path / "config.json", {**config, key: value})
    with pytest.raises(ElmanError, match=rf"config.json is damaged.*{words}") as caught:
        open_run(run.path, "cpu")
    assert len(str(caught.value)) < 500


class Heard(Report):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def test_metrics_are_checked_before_training_not_after(run):
    good = '{"epoch": 1, "update": 9, "seconds": 1.5, "loss": 2.0, "gradient_norm": 1, '
    lines = [
        good + '"perplexity": 7.4}',
        good + '"perplexity": null}',  # it was infinite
        good.replace('"epoch": 1', '"epoch": "x"') + '"perplexity": 7.4}',
        good.replace('"loss": 2.0, ', "") + '"perplexity": 7.4}',
        good.replace("2.0", "NaN") + '"perplexity": 7.4}',
        good + '"perplexity": "7.4"}',
        good + '"perplexity": 7.4, "epoch": ' + LONG + "}",
        DEEP,
        "[1]",
        good,
    ]
    (run.path / "metrics.jsonl").write_text("\n".join(lines))
    (run.path / "samples.txt").write_text(f"== epoch {LONG} ==\nnot mine\n== epoch 1 ==\nmine\n")
    state = run.load_checkpoint()
    state["position"]["epoch"] = 1
    run.save_checkpoint(state)
    settings = LanguageModelSettings.of(run.config["settings"], {"epochs": 2, "seconds": None})
    trainer = Trainer(restore(run), run, settings, resume=True, report=Heard())
    told = " ".join(trainer.report.lines)
    for k, words in {
        3: "'epoch' is 'x', expected a whole number of at least 1",
        4: "'loss' is missing",
        5: "'loss' is nan, expected a finite number",
        6: "'perplexity' is '7.4', expected a number",
        7: "no JSON: Exceeds the limit",
        8: "it is nested too deeply",
        9: r"'it' is [1], expected values by name",
        10: "no JSON",
    }.items():
        assert f"line {k} of {run.path}/metrics.jsonl is damaged and left out: {words}" in told
    trainer.train()
    assert [m["epoch"] for m in run.metrics("perplexity")] == [1, 1, 2]
    assert (run.path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "mine\n" in (run.path / "samples.txt").read_text()
    assert "not mine" not in (run.path / "samples.txt").read_text()


def test_a_log_of_gradients_is_checked_too(tmp_path):
    path = tmp_path / "gradients.jsonl"
    cell = {
        "network": "recurrent", "layer": 0, "direction": "forward", "norms": {"all": [1.0, None]},
        "verdict": "holds", "lag": 1, "gates": {"f": {"mean": 0.5, "below": 0.0, "above": None}},
        "state_norms": {"h": 1.0},
    }  # fmt: skip
    whole = {"update": 0, "cells": [cell]}
    wrong = [
        {**whole, "update": "x"},
        {**whole, "cells": [{**cell, "norms": {"all": ["x"]}}]},
        {**whole, "cells": [{**cell, "gates": {"f": {"mean": 0.5}}}]},
        {**whole, "cells": [{}]},
    ]
    path.write_text("".join(storage.to_json(line) + "\n" for line in [*wrong, whole]) + DEEP)
    assert read_log(path) == [whole]
