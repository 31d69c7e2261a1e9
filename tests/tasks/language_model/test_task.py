from __future__ import annotations

import copy
import math
import os

import pytest
import torch
from lightning_fabric import Fabric
from torch.nn.functional import cross_entropy, dropout, log_softmax

from elman.errors import ElmanError, InputError
from elman.tasks import restore
from elman.tasks.language_model.task import LanguageModel, LanguageModeling, LanguageModelSettings
from elman.training.gradients import make_gradients
from elman.training.measures import sums_of
from elman.training.run import Run
from elman.training.start import start

TEXT = "the quick brown fox jumps over the lazy dog. " * 40


SAMPLES = {"softmax_samples": 6}


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(TEXT)
    return str(path)


def _settings(**changed):
    small = {"hidden": 8, "batch": 4, "steps": 7, "validation": 0.2, "epochs": 2}
    return LanguageModelSettings.of(small, changed)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"cell": "gru-reset-before", "layers": 2, "skip": "residual"},
        {"cell": "mlp"},
        {"embedding": 5, "tied": True},
        {"embedding": 8, "tied": True, "dropout": 0.5, "variational": True},
        {"hidden_sizes": [5, 9], "forget_bias": 1.0, "learn_initial_state": True},
        {"tokens": "word", "embedding": 6},
        {"tokens": "bpe", "vocabulary_size": 300},
        {"softmax": "adaptive", "cutoffs": [9], "weight_drop": 0.5, "embedding_dropout": 0.5},
        {"softmax": "sampled", "softmax_samples": 6, "tied": True, "embedding": 5},
    ],
)
def test_steps_give_what_windows_give(book, changed):
    task = LanguageModeling.create([book], _settings(**changed))
    model = task.model.double().eval()
    window = next(iter(task.batches("train", 0)))
    logits, last = model(window.inputs)
    state = None
    for t, tokens in enumerate(window.inputs):
        out, state = model.step(tokens, state)
        assert torch.allclose(out, logits[t], atol=1e-10)
    again = model(window.inputs, last)[0]
    assert torch.allclose(model(window.inputs, state)[0], again, atol=1e-10)


@pytest.mark.parametrize(
    "changed", [{}, {"softmax": "adaptive", "cutoffs": [9]}, {"softmax": "sampled", **SAMPLES}]
)
def test_perplexity_is_exp_of_the_mean_surprise_of_every_token(book, changed):
    task = LanguageModeling.create([book], _settings(**changed))
    task.model.double()
    (source,) = task.texts.sources
    ids = torch.from_numpy(source.held_out[:].astype("int64"))
    with torch.no_grad():
        logits, _ = task.model(ids[:-1, None])
    surprise = -log_softmax(logits[:, 0], -1).gather(1, ids[1:, None])
    measured = task.evaluate()
    assert measured["tokens"] == len(ids) - 1
    assert measured["nats_per_token"] == pytest.approx(float(surprise.mean()), abs=1e-10)
    assert measured["perplexity"] == pytest.approx(math.exp(float(surprise.mean())))
    assert measured["bits_per_character"] == pytest.approx(float(surprise.mean()) / math.log(2))
    held_out = task.measure(task.model, task.batches("validation"))
    assert held_out["loss"] == pytest.approx(measured["nats_per_token"], abs=1e-10)
    assert held_out["perplexity"] == pytest.approx(measured["perplexity"], abs=1e-10)


def test_an_untrained_model_is_as_surprised_as_chance(book):
    task = LanguageModeling.create([book], _settings())
    assert task.evaluate()["perplexity"] == pytest.approx(len(task.vocabulary), rel=0.3)


def test_several_sources_are_weighted_by_their_tokens(book, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("zebra quartz " * 60)
    task = LanguageModeling.create([book, str(other)], _settings())
    measured = task.evaluate()
    parts = measured["sources"]
    assert set(parts) == {"book", "other"}
    nats = sum(p["nats_per_token"] * p["tokens"] for p in parts.values())
    assert measured["tokens"] == sum(p["tokens"] for p in parts.values())
    assert measured["nats_per_token"] == pytest.approx(nats / measured["tokens"])
    # Both are learned from: what trains is the first 80 % of one, then of the other.
    learned = task.vocabulary.decode(task.texts.stream().tokens[:])
    assert learned == TEXT[: int(len(TEXT) * 0.8)] + ("zebra quartz " * 60)[: int(13 * 60 * 0.8)]


def test_judging_on_another_text(book, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("the dog jumps over €\n" * 20, encoding="utf-8")
    task = LanguageModeling.create([book], _settings())
    measured = task.evaluate([str(other)])
    assert measured["part"] == "given"
    assert measured["tokens"] == 21 * 20 - 1


def test_every_epoch_cuts_the_text_elsewhere_and_always_the_same_way(book):
    task = LanguageModeling.create([book], _settings())
    starts = [int(next(iter(task.batches("train", epoch))).inputs[0, 0]) for epoch in range(12)]
    assert len(set(starts)) > 1
    again = LanguageModeling.create([book], _settings())
    assert starts == [
        int(next(iter(again.batches("train", epoch))).inputs[0, 0]) for epoch in range(12)
    ]
    batches = task.batches("train", 3)
    windows = list(batches)
    assert len(windows) == len(batches)
    assert torch.equal(next(batches.after(2)).inputs, windows[2].inputs)
    for part in ("train", "validation"):
        read = list(task.batches(part))
        assert len(read) == len(task.batches(part)) > 0
        for one, other in zip(task.batches(part).after(1), read[1:], strict=True):
            assert torch.equal(one.window.targets, other.window.targets)
    assert not task.batches("test")


def test_tied_weights_are_one(book):
    model = LanguageModel(30, _settings(embedding=8, tied=True))
    assert model.output.weight is model.embedding.weight
    untied = LanguageModel(30, _settings(embedding=8))
    assert sum(p.numel() for p in untied.parameters()) == 30 * 8 + sum(
        p.numel() for p in model.parameters()
    )


def test_dropout_acts_in_training_only(book):
    task = LanguageModeling.create([book], _settings(dropout=0.5, embedding=8))
    window = next(iter(task.batches("train", 0)))
    task.model.train()
    assert not torch.equal(task.model(window.inputs)[0], task.model(window.inputs)[0])
    task.model.eval()
    assert torch.equal(task.model(window.inputs)[0], task.model(window.inputs)[0])


def test_what_is_dropped_and_penalised(book):
    """Against a window computed by hand, with masks drawn in the same order."""
    rates = {"dropout": 0.3, "input_dropout": 0.2, "output_dropout": 0.5, "embedding_dropout": 0.4}
    changed = {**rates, "weight_drop": 0.3, "variational": True, "layers": 2, "embedding": 6}
    changed |= {"cell": "rnn", "activation_decay": 2.0, "slowness": 0.7}
    task = LanguageModeling.create([book], _settings(**changed))
    model = task.model.double().train()
    window = next(iter(task.batches("train", 0)))
    torch.manual_seed(3)
    loss = task.loss(model, window, None)
    torch.manual_seed(3)
    ones = torch.ones(4, 8, dtype=torch.float64)
    x = model.embedding(window.inputs) * dropout(ones[:, :6], 0.2)
    whole = dropout(torch.ones(len(task.vocabulary), dtype=torch.float64), 0.4)
    assert set(whole.tolist()) == {0, 1 / 0.6}
    x = x * whole[window.inputs][..., None]
    for layer in range(2):
        w = {name: getattr(model.recurrent, own) for name, own in
             model.recurrent.weight_names(layer).items()}  # fmt: skip
        w["weight_hh"] = dropout(w["weight_hh"], 0.3)
        h, steps = torch.zeros_like(ones), []
        for row in x:
            z = row @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
            h = torch.tanh(z)
            steps.append(h)
        y = torch.stack(steps)
        x = y * dropout(ones, 0.3 if layer == 0 else 0.5)
    surprise = cross_entropy(model.output(x).flatten(0, 1), window.targets.flatten())
    penalty = 2 * (x**2).mean() + 0.7 * ((y[1:] - y[:-1]) ** 2).mean()
    torch.testing.assert_close(loss.value, surprise, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.objective, surprise + penalty, rtol=1e-12, atol=0)
    assert sums_of(loss)["loss"] == pytest.approx(surprise.item() * window.targets.numel())


def test_a_window_of_one_step_does_not_change(book):
    task = LanguageModeling.create([book], _settings(slowness=1.0, steps=1))
    loss = task.loss(task.model, next(iter(task.batches("train", 0))), None)
    assert loss.penalty == 0


@pytest.mark.parametrize("learning", [None, "tbptt"])
@pytest.mark.parametrize("summed", [False, True])
def test_the_penalty_is_learned_from(book, learning, summed):
    settings = _settings(activation_decay=2.0, slowness=1.0, learning=learning)
    task = LanguageModeling.create([book], settings)
    window = next(iter(task.batches("train", 0)))
    whole = task.loss(task.model, window, None)
    expected = torch.autograd.grad(whole.objective, list(task.model.parameters()))
    gradients = make_gradients(task, settings, Fabric(accelerator="cpu", devices=1))
    told = gradients(window, None, summed)
    assert told.value == whole.value
    for weight, gradient in zip(task.model.parameters(), expected, strict=True):
        times = whole.count if summed else 1
        torch.testing.assert_close(weight.grad, times * gradient, rtol=1e-4, atol=1e-6)


def test_embedding_dropout_of_one_hot_tokens(book):
    model = LanguageModel(30, _settings(embedding_dropout=0.5))
    tokens = torch.arange(30).repeat(2, 1).T  # each twice
    x = model.train().embed(tokens)
    assert torch.equal(x[:, 0], x[:, 1])
    assert set(x.sum(-1).unique().tolist()) == {0, 2}
    assert torch.equal(model.eval().embed(tokens), torch.eye(30)[tokens])


def test_gradients_reach_every_parameter(book):
    task = LanguageModeling.create([book], _settings(embedding=8, layers=2, dropout=0.1))
    window = next(iter(task.batches("train", 0)))
    task.loss(task.model, window, None).value.backward()
    for name, parameter in task.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_chinese(tmp_path):
    path = tmp_path / "诗.txt"
    path.write_text("床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n" * 30, encoding="utf-8")
    task = LanguageModeling.create([str(path)], _settings())
    assert task.texts.sources[0].name == "诗"
    written = "".join(task.generate("床前", 12, seed=0))
    assert len(written) == 12
    assert set(written) <= set(path.read_text(encoding="utf-8"))


def test_settings_that_do_not_fit_together(book):
    with pytest.raises(InputError, match="tied weights need an embedding"):
        LanguageModeling.create([book], _settings(tied=True, embedding=0))
    for why, changed in {
        "`cutoffs` has an effect only where `softmax` is adaptive": {"cutoffs": [4]},
        "`softmax_samples` has an effect only where `softmax` is sampled": {
            **SAMPLES,
            "softmax": "adaptive",
        },
        "has a matrix for each cluster": {"tied": True, "embedding": 4, "softmax": "adaptive"},
        "the input is one-hot: set `embedding` above 0": {"input_dropout": 0.2},
        "weight_drop drops entries .* Perceptron has none": {"weight_drop": 0.2, "cell": "mlp"},
    }.items():
        with pytest.raises(InputError, match=why):
            LanguageModeling.create([book], _settings(**changed))
    with pytest.raises(InputError, match="no text was given"):
        LanguageModeling.create([], _settings())
    with pytest.raises(ElmanError, match=r"the text has 1,440 tokens, expected at least 2,801"):
        LanguageModeling.create([book], _settings(batch=400))


def test_a_text_that_changed_is_not_resumed(book, tmp_path):
    path = start(LanguageModeling, [book], _settings(), tmp_path / "run").run.path
    restore(Run.open(path)).check_data()
    with open(book, "a") as file:
        file.write("more")
    changed = restore(Run.open(path))
    for used in (changed.check_data, changed.evaluate):
        with pytest.raises(ElmanError, match="book is no longer what this run was trained on: res"):
            used()


@pytest.mark.skipif("ELMAN_DATA" not in os.environ, reason="needs the corpora")
def test_tiny_shakespeare_is_split_as_others_split_it():
    task = LanguageModeling.create(["tiny-shakespeare"], _settings(validation=0.1))
    (source,) = task.texts.sources
    assert (len(source.train), len(source.held_out)) == (1_003_854, 111_540)
    assert len(task.vocabulary) == 66  # nanoGPT's 65, and <unk>


def test_the_state_is_carried_through_an_evaluation(book):
    # Judged in pieces of 256 steps, the whole past must still count.
    task = LanguageModeling.create([book], _settings(validation=0.5))
    task.model.double()
    ids = torch.from_numpy(task.texts.sources[0].held_out[:].astype("int64"))
    assert len(ids) > 600
    with torch.no_grad():
        first, state = task.model(ids[:256, None])
        second, _ = task.model(ids[256:-1, None], state)
    logits = torch.cat([first, second])[:, 0]
    surprise = -log_softmax(logits, -1).gather(1, ids[1:, None]).mean()
    assert task.evaluate()["nats_per_token"] == pytest.approx(float(surprise), abs=1e-10)


def test_the_model_that_is_handed_over_is_measured(book):
    task = LanguageModeling.create([str(book)], _settings())
    uniform = copy.deepcopy(task.model)
    with torch.no_grad():
        for parameter in uniform.parameters():
            parameter.zero_()
    found = task.measure(uniform, task.batches("validation"))
    assert found["perplexity"] == pytest.approx(len(task.vocabulary))


@pytest.mark.parametrize("changed", [{}, {"cell": "gru", "hidden_sizes": [5, 9], "embedding": 4}])
def test_a_step_by_its_signature_is_the_models_own(book, changed):
    task = LanguageModeling.create([book], _settings(**changed))
    model = task.model.double().eval()
    step = task.signature()
    # A state of all layers together, or one a layer where their widths differ.
    assert list(step.states) == (["h_0", "h_1"] if changed else ["h", "c"])
    states, state = list(step.states.values()), None
    for token in (torch.tensor([3]), torch.tensor([5]), *step.inputs.values()):
        logits, *states = step.module(token, *states)
        right, state = model.step(token, state)
        assert torch.equal(logits, right)
    assert step.outputs == ("logits",)
