"""A language model that learns from what it is measured on: by which rule, and that it forgets."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from elman.data.streams import Window
from elman.errors import InputError
from elman.tasks.language_model import dynamic_evaluation
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings

TEXT = "the quick brown fox jumps over the lazy dog. " * 20
OTHER = "a lazy fox naps by a dog; " * 8


@pytest.fixture
def task(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    small = {"cell": "gru", "hidden": 8, "batch": 4, "steps": 7, "embedding": 5, "dropout": 0.5}
    task = LanguageModeling.create(
        [str(tmp_path / "book.txt")], LanguageModelSettings.of(small, {"weight_drop": 0.5})
    )
    task.model.double()
    return task


@pytest.fixture
def other(tmp_path):
    (tmp_path / "other.txt").write_text(OTHER)
    return str(tmp_path / "other.txt")


def _by_hand(task, text, update, rate, decay, steps):
    """The nats of a text and the weights after it, by the equations."""
    model = task.model.eval()
    trained = [w.detach().clone() for w in model.parameters()]
    weights = list(model.parameters())

    def gradient(window, state):
        logits, state = model(window.inputs, state)
        loss = cross_entropy(logits.flatten(0, 1), window.targets.flatten())
        return loss.item(), torch.autograd.grad(loss, weights), state.detach()

    roots = [torch.zeros_like(w) for w in weights]
    learned, state = torch.from_numpy(task.texts.stream().tokens[:].astype("int64")), None
    for begin in range(0, 3 * steps, steps):
        part = learned[begin : begin + steps + 1, None]
        _, found, state = gradient(Window(part[:-1], part[1:]), state)
        roots = [r + g**2 for r, g in zip(roots, found, strict=True)]
    roots = [(r / 3) ** 0.5 for r in roots]
    mean = torch.cat([r.flatten() for r in roots]).mean()
    total, state = 0.0, None
    ids = torch.from_numpy(task.vocabulary.encode_text(text)).long()
    for begin in range(0, len(ids) - 1, steps):
        part = ids[begin : begin + steps + 1, None]
        loss, found, state = gradient(Window(part[:-1], part[1:]), state)
        total += loss * (len(part) - 1)
        with torch.no_grad():
            for w, start, g, r in zip(weights, trained, found, roots, strict=True):
                if update == "sgd":
                    w += decay * (start - w) - rate * g
                else:
                    back = (decay * r / mean).clamp(max=1) * (start - w)
                    w += back - rate * g / (r + mean)
    after = [w.detach().clone() for w in weights]
    with torch.no_grad():
        for w, start in zip(weights, trained, strict=True):
            w.copy_(start)
    return total, after


@pytest.mark.parametrize(("update", "rate", "decay"), [("sgd", 0.7, 0.05), ("rms", 0.01, 0.3)])
def test_each_segment_is_measured_and_then_learned_from(
    task, other, monkeypatch, update, rate, decay
):
    monkeypatch.setattr(dynamic_evaluation, "_SEGMENTS", 3)
    expected, _ = _by_hand(task, OTHER, update, rate, decay, 6)
    how = {"dynamic_update": update, "dynamic_rate": rate, "dynamic_decay": decay}
    found = task.evaluate([other], dynamic=True, dynamic_steps=6, **how)
    assert found["tokens"] == len(OTHER) - 1
    assert found["nats_per_token"] * found["tokens"] == pytest.approx(expected, rel=1e-10)
    static = task.evaluate([other])
    assert found["nats_per_token"] < static["nats_per_token"] - 0.02
    assert found["sources"]["other"] == {name: found[name] for name in found["sources"]["other"]}


@pytest.mark.parametrize("update", ["sgd", "rms"])
def test_the_trained_weights_are_back_whatever_comes(task, other, update, monkeypatch):
    before = {name: w.clone() for name, w in task.model.state_dict().items()}
    first = task.evaluate([other], dynamic=True, dynamic_update=update)
    assert first["perplexity"] == task.evaluate([other], dynamic=True, dynamic_update=update)[
        "perplexity"
    ]  # fmt: skip
    learn, calls = dynamic_evaluation._Adapting.update, []

    def broken(self):
        learn(self)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(dynamic_evaluation._Adapting, "update", broken)
    with pytest.raises(KeyboardInterrupt):
        task.evaluate([other], dynamic=True, dynamic_update=update)
    assert all(torch.equal(before[name], w) for name, w in task.model.state_dict().items())
    assert all(w.grad is None for w in task.model.parameters())


def test_every_text_begins_with_the_trained_weights(task, other, tmp_path):
    (tmp_path / "third.txt").write_text(OTHER.upper().lower() * 2)
    third = str(tmp_path / "third.txt")
    together = task.evaluate([third, other], dynamic=True)["sources"]
    for name, path in (("third", third), ("other", other)):
        alone = task.evaluate([path], dynamic=True)
        assert together[name]["nats_per_token"] == alone["nats_per_token"]


def test_gradients_are_known_from_all_texts_that_are_learned_from(tmp_path, other, monkeypatch):
    texts = []
    for k, text in enumerate((TEXT, OTHER * 3)):
        (tmp_path / f"{k}.txt").write_text(text)
        texts.append(str(tmp_path / f"{k}.txt"))
    task = LanguageModeling.create(
        texts, LanguageModelSettings.of({"hidden": 4, "batch": 2, "steps": 7})
    )
    monkeypatch.setattr(dynamic_evaluation, "_SEGMENTS", 6)
    learn, seen = dynamic_evaluation._Adapting.gradient, []

    def gradient(self, window, carry):
        seen.append((carry is None, window.inputs.flatten()[:6].tolist()))
        return learn(self, window, carry)

    monkeypatch.setattr(dynamic_evaluation._Adapting, "gradient", gradient)
    task.evaluate([other], dynamic=True, dynamic_steps=6)
    first = [ids for begins, ids in seen if begins]
    assert first[:2] == [task.vocabulary.encode_text(t)[:6].tolist() for t in (TEXT, OTHER)]
    assert [begins for begins, _ in seen[:7]] == [True, False, False] * 2 + [True]


def test_a_rate_of_nearly_nothing_is_no_dynamic_evaluation(task, other):
    still = task.evaluate([other], dynamic=True, dynamic_update="sgd", dynamic_rate=1e-30)
    assert still["nats_per_token"] == pytest.approx(task.evaluate([other])["nats_per_token"])


def test_settings_without_effect_are_refused(task, other):
    with pytest.raises(InputError, match="`dynamic_rate` has an effect only where `dynamic` is on"):
        task.evaluate([other], dynamic_rate=0.1)
    with pytest.raises(InputError, match="unknown setting 'dynamik': did you mean 'dynamic'"):
        task.evaluate([other], dynamik=True)
