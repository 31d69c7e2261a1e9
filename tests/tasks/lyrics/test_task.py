from __future__ import annotations

import json
import math
import random

import pytest
import torch
from torch.nn.functional import log_softmax

from elman import cli
from elman.data.forms import Form
from elman.data.streams import PADDING
from elman.errors import ElmanError, InputError
from elman.tasks import open_run
from elman.tasks.language_model.network import LanguageModel
from elman.tasks.lyrics.network import Guided
from elman.tasks.lyrics.task import Lyrics, LyricsSettings
from elman.tasks.lyrics.writing import compose

FORMS = {"甲子歌": ["3，3。/5。", "3，4。/5。"], "乙": ["4。/4。/2，2，3。"], "丙": ["6。"]}
WORDS = "一二三四五六七八九十百千万"


def _poem(draw, form):
    return "\n".join(
        "".join("".join(draw.choices(WORDS, k=n)) + mark for n, mark in line)
        for line in Form.parse(form).lines
    )


@pytest.fixture(scope="module")
def poems(tmp_path_factory):
    draw = random.Random(0)
    tunes = draw.choices(list(FORMS), k=60)
    path = tmp_path_factory.mktemp("poems") / "poems.txt"
    path.write_text("\n\n".join(f"{t}\n{_poem(draw, draw.choice(FORMS[t]))}" for t in tunes))
    return str(path)


def _settings(**changed):
    small = {"hidden": 24, "embedding": 12, "batch": 8, "validation": 0.2, "written": 0}
    return LyricsSettings.of(small, changed)


@pytest.fixture(scope="module")
def run(poems, tmp_path_factory):
    """The run of a job that has learned to keep a form."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    how = _settings(epochs=40, learning_rate=0.02, written=20).to_json()
    Lyrics.train([poems], run=folder, **how)
    return folder


@pytest.fixture(scope="module")
def trained(run):
    return open_run(run)


@pytest.mark.parametrize("tokens", ["character", "word"])
def test_what_is_asked_is_what_comes(poems, tokens):
    job = Lyrics.create([poems], _settings(tokens=tokens))
    counted = 0
    for batch in job.batches("train", 0):
        for inputs, targets in zip(batch.inputs.unbind(1), batch.targets.unbind(1), strict=True):
            asked = targets != PADDING
            body = targets[asked]
            allowed = job.prosody.allowed(job.prosody.form(body))
            assert allowed.gather(1, body[:, None]).all()
            # What is read beside each token is what is asked of the next.
            left = inputs[asked][:, 1] - 1
            assert torch.equal(left == 0, job.prosody.silent[body])
            assert (inputs[: int(asked.nonzero()[0]), 1:-1] == 0).all()  # in the heading, nothing
            counted += 1
    assert counted == len(job.verses["train"]) == 48


def test_some_are_learned_without_their_tune_and_all_are_measured_with_it(poems):
    job = Lyrics.create([poems], _settings(untitled=0.5))

    def nameless(batches):
        return sum(int((batch.inputs[0, :, 0] == job.prosody.end).sum()) for batch in batches)

    assert 10 < nameless(job.batches("train", 0)) < 38
    assert nameless(job.batches("train")) == 0


@torch.no_grad()
@pytest.mark.parametrize("form", [True, False])
def test_a_poem_alone_is_what_it_is_beside_others(poems, form):
    job = Lyrics.create([poems], _settings(form=form))
    model = job.model.double().eval()
    verses = job.verses["train"][:8]
    alone = [job.loss(model, job._collate([verse]), None) for verse in verses]
    batch = job._collate(verses)
    behind = batch.targets == PADDING
    behind &= behind.flip(0).int().cumprod(0).flip(0).bool()  # but not in the heading
    assert behind.any()
    batch.inputs[behind] = 1
    together = job.loss(model, batch, None)
    assert together.count == sum(loss.count for loss in alone)
    whole = sum(float(loss.value) * loss.count for loss in alone)
    assert float(together.value) * together.count == pytest.approx(whole, rel=1e-10)


@torch.no_grad()
def test_perplexity_of_all_tokens_and_of_words(poems):
    job = Lyrics.create([poems], _settings(form=False))
    model, vocabulary = job.model.double().eval(), job.prosody.vocabulary
    nats, words = [], []
    for verse in job.verses["validation"]:
        text = f"{verse.tune}\n{vocabulary.decode(verse.body.tolist())}"
        assert text.endswith("。\n\n")
        ids = torch.tensor(job.prosody.encode(text))
        log_p = log_softmax(model(ids[:-1, None])[0][:, 0], -1)
        for k in range(len(verse.tune) + 1, len(text)):
            nats.append(-float(log_p[k - 1, ids[k]]))
            words.append(text[k] in WORDS)
    found = job.measure(model, job.batches("validation"))
    assert found["perplexity"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-6)
    spoken = [n for n, word in zip(nats, words, strict=True) if word]
    expected = math.exp(sum(spoken) / len(spoken))
    assert found["perplexity_of_words"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("embedding", [0, 6])
def test_steps_give_what_whole_poems_give(poems, embedding):
    job = Lyrics.create([poems], _settings(embedding=embedding, layers=2, cell="gru"))
    model = job.model.double().eval()
    batch = next(iter(job.batches("train")))
    logits, _ = model(batch.inputs)
    step, state = job.signature().module, tuple(job.signature().states.values())
    assert job.signature().inputs["token"].shape == batch.inputs[0, :1].shape
    state = tuple(s.double().expand(*s.shape[:-2], 8, -1) for s in state)
    for t, token in enumerate(batch.inputs):
        out, *state = step(token, *state)
        assert torch.allclose(out, logits[t], atol=1e-10)


def test_guided_steps_are_the_models_own(poems):
    job = Lyrics.create([poems], _settings())
    model, verse = job.model.double().eval(), job.verses["train"][0]
    batch = job._collate([verse])
    logits = model(batch.inputs)[0][:, 0]
    heading = job.prosody.heading(verse.tune)
    conditions = torch.from_numpy(job.prosody.conditions(verse.tune, verse.form, len(heading)))
    allowed = job.prosody.allowed(verse.form, len(heading))
    logits = logits.masked_fill(~allowed, -torch.inf)
    guided = Guided(model, conditions.long(), allowed)
    found, state = guided(torch.tensor(heading))
    assert torch.allclose(found, logits[: len(heading)], atol=1e-10)
    for t, id in enumerate(verse.body[:-1], start=len(heading)):
        out, state = guided.step(torch.tensor(int(id)), state)
        assert torch.allclose(out, logits[t], atol=1e-10)


def test_the_condition_alone_keeps_the_form(trained):
    found = trained.evaluate()["written"]
    assert found["without the mask"]["as_asked"] >= 0.9
    assert found["with the mask"]["as_asked"] == 1
    assert found["real"]["as_asked"] == 1
    # Also lengths that no poem has: it is the condition, and no habit of the tune.
    new = Form.parse("5，2。/3。")
    made = trained.prosody.form(compose(trained, "乙", new, mask=False, temperature=0.5, seed=0))
    assert made.lengths == new.lengths


def test_without_a_form_there_is_only_the_mask(poems):
    job = Lyrics.create([poems], _settings(form=False, written=10))
    assert type(job.model) is LanguageModel
    found = job.evaluate()["written"]
    assert found["without the mask"]["as_asked"] < 0.5
    assert found["with the mask"]["as_asked"] == 1


@pytest.mark.parametrize(
    ("asked", "form"),
    [
        ({"tune": "丙"}, "6。"),
        ({"tune": "乙", "first_line": "一二"}, "4。/4。/2，2，3。"),
        ({"tune": "甲子歌", "first_line": "一二三，四五六七。"}, "3，4。/5。"),
        ({"first_line": "一二三四五六"}, "6。"),
        ({"tune": "乙", "form": "2,3"}, "2。/3。"),
        ({"form": "2，20。/3。"}, "2，20。/3。"),
    ],
)
def test_poems_are_in_the_form_that_was_asked_for(trained, asked, form):
    made = list(trained.generate(**asked, poems=2, seed=3))
    assert len(made) == 2
    for poem in made:
        lines = poem["text"].removesuffix("\n").split("\n")
        if poem["tune"]:
            assert lines.pop(0) == poem["tune"] == asked.get("tune", poem["tune"])
        assert "".join(lines).startswith(asked.get("first_line", ""))
        assert poem["form"] == str(Form.of(lines)) == form
    assert made == list(trained.generate(**asked, poems=2, seed=3))
    assert made[1:] == list(trained.generate(**asked, seed=4))


def test_on_the_command_line_poems_stand_below_their_tunes(run, trained, capsys):
    asked = ["generate", str(run), "--tune", "乙", "--poems", "2", "--seed", "5"]
    made = list(trained.generate(tune="乙", poems=2, seed=5))
    assert cli.run(asked) == 0
    assert capsys.readouterr().out == "".join(poem["text"] + "\n" for poem in made)
    assert cli.run([*asked, "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == made


def test_forms_are_drawn_as_often_as_they_are_there(trained):
    made = [
        poem["form"] for poem in trained.generate(form="drawn", tune="甲子歌", poems=40, seed=0)
    ]
    assert set(made) == set(FORMS["甲子歌"])
    tunes = {poem["tune"] for poem in trained.generate(poems=20, seed=0)}
    assert tunes == set(FORMS)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"tune": "甲丑歌"}, "no poem of the tune '甲丑歌': did you mean 甲子歌?"),
        ({"tune": "一"}, "no poem of the tune '一': give a `form` for it"),
        ({"tune": "丙", "first_line": "一二三四五六七"}, "no form of 丙 begins .* such as 6。;"),
        ({"form": "3，2。", "first_line": "一二三。"}, "no form of those there are begins"),
        ({"first_line": "一二鱻"}, "the first line has characters .* never seen: '鱻'"),
        ({"form": "3？"}, "has marks that the model has never seen: ？; it knows "),
        ({"form": "three"}, "`form` has a line 'three', expected lengths"),
        ({"greedy": True, "top_k": 3}, "`greedy` takes the likeliest"),
    ],
)
def test_what_cannot_be_written(trained, asked, words):
    with pytest.raises(InputError, match=words):
        list(trained.generate(**asked))


def test_a_run_brings_back_what_it_knew(trained, poems):
    again = Lyrics.prepare([poems], trained.settings)
    assert again.assets() == trained.assets()
    assert again.prosody.sizes == trained.prosody.sizes
    json.dumps(trained.assets())


def test_english_counts_words(tmp_path):
    path = tmp_path / "poems.jsonl"
    lines = ["the old man, the boat.", "a rose is a rose"]
    path.write_text(json.dumps({"tune": "two lines", "lines": lines}) + "\n")
    job = Lyrics.create([str(path)], _settings(tokens="word", validation=0))
    assert str(next(iter(job.prosody.forms.counts["two lines"]))) == "3,2./5"
    (poem,) = job.generate(tune="two lines", first_line="the old", seed=0)
    heading, *written = poem["text"].splitlines()
    assert heading == "two lines"
    assert written[0].startswith("the old ")
    assert Form.of(job.prosody.tokens(job.prosody.encode(line)) for line in written) == Form.parse(
        "3,2./5"
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [([], "no data was given, expected poems"), (["no.txt"], "no.txt is neither")],
)
def test_data_that_is_none(data, words):
    with pytest.raises(ElmanError, match=words):
        Lyrics.create(data, _settings())
