"""Dialogues, from every format."""

from __future__ import annotations

import pytest

from elman.data.dialogues import Dialogue, parallel_turns
from elman.data.kinds import DIALOGUES
from elman.data.place import Place
from elman.errors import ElmanError


@pytest.fixture
def read(tmp_path):
    def through(name, text):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return DIALOGUES.read([str(path)])

    return through


def plain(dialogues):
    return [(dialogue.turns, dialogue.place.line) for dialogue in dialogues]


def test_a_dialogue_a_line(read):
    text = "Hi . __eou__ Hello !\r\n\r\n你好。__eou__再见。 __eou__\r\nalone\r\n"
    assert plain(read("a.txt", text)) == [
        (("Hi .", "Hello !"), 1), (("你好。", "再见。"), 3), (("alone",), 4),
    ]  # fmt: skip


def test_a_turn_a_line(read):
    found = plain(read("a.txt", "\nHi.\n Hello!\n\n\nBye.\nSee you."))
    assert found == [(("Hi.", "Hello!"), 2), (("Bye.", "See you."), 6)]


def test_json_lines(read):
    found = plain(read("a.jsonl", '{"turns": ["Hi.", "Hello!"], "topic": 3}\n["Bye."]\n'))
    assert found == [(("Hi.", "Hello!"), 1), (("Bye.",), 2)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "a\nHi __eou__ __eou__ Hello", "a.txt, line 2: turn 2 is empty, expected a dia"),
        ("a.txt", "__eou__", "line 1: turn 1 is empty"),
        ("a.jsonl", '{"turns": []}', "line 1: there is no turn"),
        ("a.jsonl", '{"turns": ["a", 1]}', r"line 1: received .*, expected {\"turns\": \[texts\]}"),
        ("a.jsonl", '"a"', "line 1: received 'a', expected"),
        ("a.txt", "\n\n", "has no dialogues"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(read, name, text, message):
    with pytest.raises(ElmanError, match=message):
        read(name, text)


def test_turns_are_paired_with_their_translations():
    one = [Dialogue(("a", "b"), Place("x", 1)), Dialogue(("c",), Place("x", 2))]
    other = [Dialogue(("A", "B"), Place("y", 1)), Dialogue(("C",), Place("y", 2))]
    assert [pair[:2] for pair in parallel_turns(one, other)] == [("a", "A"), ("b", "B"), ("c", "C")]
    with pytest.raises(ElmanError, match="x, line 1 has 2 turns and y, line 2 1, expected as many"):
        list(parallel_turns(one[:1], other[1:]))
    with pytest.raises(ElmanError, match="x has 2 dialogues and y 1, expected as many"):
        list(parallel_turns(one, other[:1]))
