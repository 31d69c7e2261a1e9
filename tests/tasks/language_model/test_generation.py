from __future__ import annotations

import pytest
import torch

from elman.data.vocabulary import Vocabulary
from elman.errors import ElmanError, InputError
from elman.tasks.language_model.generation import generate
from elman.tasks.language_model.task import LanguageModel, LanguageModelSettings


@pytest.fixture
def writer():
    torch.manual_seed(0)
    vocabulary = Vocabulary.build(["abcdefgh \n"], "character")
    model = LanguageModel(len(vocabulary), LanguageModelSettings.of({"hidden": 16}))
    return model.eval(), vocabulary


def test_greedy_takes_the_likeliest_given_everything_before(writer):
    model, vocabulary = writer
    written = "".join(generate(*writer, "abc", 20, temperature=0))
    text = "abc" + written
    ids = torch.from_numpy(vocabulary.encode_text(text).astype("int64"))
    with torch.no_grad():
        logits = model(ids[:, None])[0][:, 0]
    logits[:, vocabulary.unknown_id] = -torch.inf
    assert vocabulary.decode(logits.argmax(-1)[2:-1].tolist()) == written


def test_a_seed_fixes_the_draws(writer):
    first = "".join(generate(*writer, "a", 50, seed=3))
    assert first == "".join(generate(*writer, "a", 50, seed=3))
    assert first != "".join(generate(*writer, "a", 50, seed=4))


def test_global_randomness_is_left_alone(writer):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    "".join(generate(*writer, "a", 5))
    assert torch.equal(torch.get_rng_state(), before)


def test_pieces_appear_one_by_one(writer):
    pieces = generate(*writer, "a", 10**9)
    assert len("".join(next(pieces) for _ in range(5))) == 5


def test_unknown_is_never_written(writer):
    model, vocabulary = writer
    with torch.no_grad():
        model.output.bias[vocabulary.unknown_id] = 100.0
    assert "<unk>" not in "".join(generate(*writer, "a", 50, seed=0))


@pytest.mark.parametrize("stop", ["b", "ab", "hello", "c\n"])
def test_stopping_before_a_text(writer, stop):
    whole = "".join(generate(*writer, "a", 300, seed=5))
    stopped = "".join(generate(*writer, "a", 300, seed=5, stop=stop))
    assert stopped == whole.split(stop)[0]


def test_a_stop_that_began_but_did_not_come_is_written(writer):
    whole = "".join(generate(*writer, "a", 30, seed=5))
    assert "".join(generate(*writer, "a", 30, seed=5, stop=whole[-2:] + "§")) == whole


def test_without_a_prompt_it_starts_on_its_own(writer):
    assert len("".join(generate(*writer, "", 10, seed=0))) == 10


def test_prompts_are_normalised_like_the_text(writer):
    same = generate(*writer, "abc", 20, temperature=0)
    assert "".join(same) == "".join(generate(*writer, "ABC", 20, temperature=0, normalize="lower"))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"prompt": "aéb界é"}, "never seen: 'é', '界'; leave"),
        ({"length": 0}, "length must be at least 1, received 0"),
        ({"temperature": -1}, "temperature must lie between 0 and 1,000,000, received -1"),
        (
            {"temperature": float("nan")},
            "temperature must lie between 0 and 1,000,000, received nan",
        ),
        ({"top_k": 0}, "top_k must be at least 1, received 0"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], received 0"),
        ({"stop": ""}, "stop must be a text"),
    ],
)
def test_what_cannot_be_written(writer, how, words):
    given = {"prompt": "a", "length": 3} | how
    with pytest.raises(InputError, match=words):
        generate(*writer, given.pop("prompt"), given.pop("length"), **given)


def test_a_model_that_has_diverged_writes_nothing(writer):
    model, _ = writer
    with torch.no_grad():
        model.output.bias.fill_(torch.nan)
    with pytest.raises(ElmanError, match="diverged"):
        next(generate(*writer, "a", 5))
