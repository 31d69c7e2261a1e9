"""Dialogue: what is learned from, perplexity of replies, replies alone and in a conversation."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import elman
from elman import cli, nested
from elman.data.shards import Shard
from elman.tasks.dialogue.chat import Chat, ReplyingSettings, distinct
from elman.tasks.dialogue.task import Conversation
from elman.training.run import Run
from elman.training.start import resume

LINES = [
    "hi . __eou__ hello , how are you ? __eou__ fine , and you ? __eou__ fine .",
    "hi . __eou__ hello . __eou__ is it cold ? __eou__ it is cold .",
    "is it warm ? __eou__ it is warm . __eou__ i like it warm .",
    "你好 。 __eou__ 你好吗 ？ __eou__ 好 。",
    "bye . __eou__ bye , see you .",
    "how are you ? __eou__ fine .",
]
SMALL = {"cell": "gru", "hidden": 8, "batch": 4, "validation": 0.25, "min_count": 1, "epochs": 2}
ASKED = [
    ["hi ."],
    ["hi .", "hello .", "is it cold ?"],
    ["is it warm ?"],
    ["你好 。", "好 。", "hi ."],
]
WAYS = [{"seed": 3, "temperature": 1.0}, {"beam": 3}, {"seed": 1, "repetition_penalty": 4.0}]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "talk.txt"
    path.write_text("\n".join(LINES * 2) + "\n")
    return [str(path)]


def made(data, **settings):
    task = Conversation.create(data, Conversation.Settings.of(SMALL, settings))
    task.model.eval()
    return task


@torch.no_grad()
@pytest.mark.parametrize("attention", ["none", "general"])
def test_perplexity_is_of_every_reply_token_and_its_end(data, attention):
    task = made(data, attention=attention)
    task.model.double()
    nats, count = 0.0, 0
    for turns in task.coded("validation"):
        heard = None
        for k, turn in enumerate(turns):
            if heard is not None:
                state = task.model.answer(heard)
                for before, token in zip([task.side.end, *turn], turn, strict=False):
                    logits, state = task.model.step(torch.tensor([before]), state)
                    nats -= float(logits.log_softmax(-1)[0, token])
                    count += 1
            ids = torch.tensor(turn)[:, None]
            heard = task.model.hear(ids, torch.tensor([len(ids)]), heard)
            assert turn[-1] == task.side.end and k < len(turns)
    assert count > 10
    measures = task.measure(task.model, task.batches("validation"))
    assert measures["loss"] == pytest.approx(nats / count, rel=1e-9)
    assert measures["perplexity"] == pytest.approx(math.exp(nats / count))


@pytest.mark.parametrize("attention", ["none", "general"])
@pytest.mark.parametrize("how", WAYS)
def test_a_chat_replies_as_to_the_whole_dialogue(data, attention, how):
    task = made(data, attention=attention)
    chat, turns = Chat(task, ReplyingSettings(**how, length=9)), []
    for turn in ("hi .", "is it cold ?", "你好吗", "hi ."):
        turns.append(turn)
        reply = chat.answer(turn)
        assert task.reply([turns], **how, length=9) == [{"reply": reply}]
        turns.append(reply)


def test_the_state_that_a_chat_carries_is_that_of_all_turns_and_does_not_grow(data):
    task = made(data)
    chat, turns, sizes = Chat(task, ReplyingSettings(seed=1)), [], set()
    for turn in ("hi .", "is it cold ?") * 6:
        turns += [turn, chat.answer(turn)]
        sizes.add(sum(leaf.numel() for leaf in nested.leaves(chat._encoding)))
    ids = torch.tensor([id for turn in turns for id in task.read(turn)])[:, None]
    with torch.no_grad():
        whole = task.model.hear(ids, torch.tensor([len(ids)]))
    assert torch.equal(whole.recurrent, chat._encoding.recurrent)
    assert len(sizes) == 1
    assert len(chat._said) == 8


@pytest.mark.parametrize("attention", ["none", "general"])
@pytest.mark.parametrize("how", WAYS)
def test_a_reply_depends_on_its_dialogue_alone(data, attention, how):
    task = made(data, attention=attention)
    together = task.reply([*ASKED, ["hi . " * 40, "bye ."]], **how)
    assert together[:4] == [task.reply([turns], **how)[0] for turns in ASKED]
    assert together[:4] == task.reply(ASKED, **how)


def test_a_dialogue_that_was_learned_is_answered(data):
    task = Conversation.train(
        data, **{**SMALL, "hidden": 32, "epochs": 15, "validation": 0.0, "learning_rate": 0.01}
    )
    asked = ["how are you ?", "is it warm ? __eou__ it is warm .", ("你好 。", "你好吗 ？")]
    replies = [each["reply"] for each in task.reply(asked, beam=2)]
    assert replies == ["fine.", "i like it warm.", "好。"]
    assert [each["reply"] for each in task.chat(["bye ."], beam=1)] == ["bye, see you."]


def test_new_begins_anew_and_what_is_empty_is_no_turn(data):
    task = made(data)
    first, second = task.chat(["hi .", "", "bye ."], seed=2)
    once, again, other = task.chat(["hi .", "/new", "hi .", "bye ."], seed=2)
    assert once == again == first and second == other
    with pytest.raises(elman.InputError, match="a chat reads one turn after the other"):
        list(task.chat([["hi .", "hello ."]]))


def test_words_that_are_unknown_are_read_and_never_written(data):
    task = made(data, min_count=3)
    assert 0 in task.read("zebra") and any(0 in turns[0] for turns in task.coded("train"))
    replies = task.reply([["zebra zebra"]] * 20, temperature=3.0, top_p=1.0)
    assert all(each["reply"] and "<unk>" not in each["reply"] for each in replies)


@pytest.mark.parametrize("tokens", ["character", "whitespace", "bpe"])
def test_any_kind_of_tokens_will_do(data, tokens):
    task = made(data, tokens=tokens, lowercase=True)
    assert task.read("Hi .") == task.read("hi .")
    assert task.side.decode(task.read("hi .")[:-1]) == "hi ."
    replies = task.reply([["HI ."], ["你好 。"]], seed=0, length=20)
    assert not any("\n" in each["reply"] for each in replies)


def test_no_three_tokens_come_twice_in_a_reply(data):
    task = made(data)
    with torch.no_grad():
        task.model.output.bias[task.side.end] = -100
    for each in task.reply([["hi ."]] * 5, beam=1, length=40):
        ids = task.side.encode(each["reply"])
        grams = list(zip(ids, ids[1:], ids[2:], strict=False))
        assert len(grams) == len(set(grams)) > 10


def test_what_was_said_before_loses_as_much_as_is_set(data, monkeypatch):
    task, seen = made(data), []

    @torch.inference_mode()
    def told(step, state, start, **how):
        seen.append([step(start, state)[0], step(torch.tensor([word]), state)[0]])
        return [elman.decoding.Hypothesis([word], 0.0, 0.0)]

    word, then = task.side.encode("hello ,")
    monkeypatch.setattr("elman.tasks.dialogue.chat.draw", told)
    turns = ["hi .", "hello , hello ,", "hi .", "fine .", "hi ."]
    for penalty in (0.0, 2.5):
        task.reply([turns], repetition_penalty=penalty)
    (first, after), (less, less_after) = seen
    lost = torch.zeros(2, task.side.size)
    lost[0, [word, task.side.encode("fine")[0]]] = 2.5
    lost[1, then] = 2.5
    torch.testing.assert_close(torch.cat([first - less, after - less_after]), lost)


def test_dialogues_that_teach_nothing_are_left_out_and_counted(data, tmp_path, caplog):
    path = tmp_path / "more.txt"
    path.write_text("alone\nonce more alone\nhi . __eou__ " + "very " * 30 + "\n" + LINES[0] + "\n")
    with caplog.at_level(logging.INFO, "elman"):
        task = made([str(path)], validation=0.0, longest=25)
    assert len(task.coded("train")) == 1
    assert "of one turn, which nobody answers: 2 of 4" in caplog.text
    assert "with more than 25 tokens: 1 of 4" in caplog.text
    path.write_text("alone __eou__\n")
    with pytest.raises(elman.ElmanError, match="none of the 1 dialogues has two turns"):
        made([str(path)], validation=0.0)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([["hi", " "]], "the inputs, number 1: turn 2 is empty"),
        (["hi", "hi __eou__"], "the inputs, number 2: turn 2 is empty"),
        ([[]], "there is no turn"),
        ([["hi", 3]], "expected a text, or a list of turns"),
        ([7], "received 7, expected a text, or a list of turns"),
    ],
)
def test_a_dialogue_that_cannot_be_answered_is_refused(data, asked, said):
    with pytest.raises(elman.ElmanError, match=said):
        made(data).reply(asked)


@pytest.mark.parametrize("attention", ["none", "general"])
def test_a_hundred_thousand_words_are_heard_and_measured(data, tmp_path, attention):
    task, long = made(data, attention=attention, longest=50), "cold " * 100_000
    assert task.reply([[long, "hi ."]], seed=1)[0]["reply"]
    if attention == "none":
        path = tmp_path / "long.txt"
        path.write_text(f"hi . __eou__ {long}\n")
        found = task.measure(task.model, task.batches_of([str(path)]))
        assert 1 < found["perplexity"] < 1000


def test_a_training_goes_on_bit_for_bit(tmp_path):
    path = tmp_path / "talk.txt"
    path.write_text("\n".join([*LINES, *(f"{line} __eou__ ok ." for line in LINES)]) + "\n")
    data = [str(path)]
    settings = {**SMALL, "dropout": 0.3, "attention": "general"}
    through = Conversation.train(data, run=tmp_path / "through", **settings)
    Conversation.train(data, run=tmp_path / "cut", **settings, seconds=1e-9)
    trainer = resume(Conversation, Run.open(tmp_path / "cut"), seconds=None)
    trainer.train()
    trainer.run.give_weights(trainer.task.model)
    for name, weight in through.model.state_dict().items():
        assert torch.equal(weight, trainer.task.model.state_dict()[name]), name
    assert "> " in (tmp_path / "through" / "samples.txt").read_text()


def test_processes_together_read_every_dialogue_once(data):
    task = made(data)

    def read(batches):
        return sorted(
            tuple(column[:length])
            for batch in batches
            if batch is not None
            for column, length in zip(batch.tokens.T.tolist(), batch.lengths, strict=True)
        )

    parts = [read(task.batches("train", 1, Shard(rank, 2))) for rank in range(2)]
    assert read(task.batches("train", 1)) == sorted([*parts[0], *parts[1]])


def test_evaluate_tells_how_various_replies_are(data, tmp_path):
    run = Conversation.train(data, run=tmp_path / "run", **SMALL)
    found = elman.open_run(tmp_path / "run").evaluate()
    assert found["perplexity"] == pytest.approx(run.evaluate()["perplexity"])
    assert found["replies"].keys() == {"written", "of people"}
    assert all(0 < row["distinct-1"] <= 1 for row in found["replies"].values())
    assert "says little" in run.doubts(found)[0]
    assert distinct([["a", "b", "a"], ["a", "b"]], 1) == 2 / 5
    assert distinct([["a", "b", "a"], ["a", "b"]], 2) == 2 / 3
    assert distinct([[]], 1) == 0


def test_the_command_line_converses_and_replies(data, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    task = Conversation.train(data, run=run, **SMALL)

    def typed(*words):
        assert cli.run([str(word) for word in words]) == 0
        return capsys.readouterr().out.splitlines()

    monkeypatch.setattr("sys.stdin", io.StringIO("hi .\n/new\nhi .\nbye .\n"))
    expected = [each["reply"] for each in task.chat(["hi .", "/new", "hi .", "bye ."], seed=4)]
    assert typed("chat", run, "--seed", 4) == expected
    assert expected[0] == expected[1]
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps({"turns": turns}) + "\n" for turns in ASKED))
    replies = [each["reply"] for each in task.reply(ASKED, beam=2)]
    assert typed("reply", run, "--file", asked, "--beam", 2) == replies
    assert typed("reply", run, " __eou__ ".join(ASKED[1]), "--beam", 2) == [replies[1]]


def test_the_n_gram_model_beside_it_is_one_of_nltk_s():
    path = Path(__file__).parents[3] / "benchmarks" / "dialogue_ngram.py"
    found = importlib.util.spec_from_file_location("dialogue_ngram", path)
    ngram = importlib.util.module_from_spec(found)
    found.loader.exec_module(ngram)
    lines = np.random.default_rng(0).integers(0, 6, (8, 9)).tolist()
    ngram.check(lines, 3, 6)
    # Of all that may follow what was seen or not, the probabilities add up to 1.
    model = ngram.KneserNey(lines, 4, 9)
    for history in ([], lines[0][:2], [8, 7, 1], lines[1][:5]):
        told = [model.log_probabilities([[*history, id]])[-1] for id in range(9)]
        assert np.exp(told).sum() == pytest.approx(1)
