from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.data.forms import MARKS, Form, Forms
from elman.errors import ElmanError, InputError

POEM = ("一曲新词酒一杯，去年天气旧亭台。", "夕阳西下几时回？", "无可奈何")
LINES = st.lists(st.text("ab，。,…", min_size=1, max_size=8), min_size=1, max_size=4)


def test_a_form_is_lengths_and_marks():
    form = Form.of(POEM)
    assert str(form) == "7，7。/7？/4"
    assert form.lengths == ((7, 7), (7,), (4,))


@given(LINES)
def test_what_is_written_is_read_again(lines):
    form = Form.of(lines)
    assert Form.parse(str(form)) == form
    assert Forms.from_json(Forms.of([("a", form)]).to_json()).counts == {"a": {form: 1}}


@given(LINES)
def test_places_are_what_stands_there(lines):
    text = "\n".join(lines) + "\n\n"
    stops = [k for k, character in enumerate(text) if character in MARKS or character == "\n"]
    places = list(Form.of(lines).places())
    assert len(places) == len(text)
    for k, place in enumerate(places):
        stop = next(s for s in stops if s >= k)
        assert place.left == stop - k
        assert place.mark == text[stop]
        rest = text[k:].split("\n")
        assert place.lines == len(rest) - 2
        assert place.clauses == (len(Form.of(rest[:1]).lines[0]) if rest[0] else 0)


def test_lengths_alone_are_a_line_each():
    assert Form.of_lengths("7,7, 5", "。") == Form.parse("7。/7。/5。")
    assert Form.of_lengths("7", "") == Form.parse("7")
    assert Form.of_lengths("7，7。/5。", "。") is None


@pytest.mark.parametrize("text", ["", "x", "7//7", "7。。", "-3", "7;x", "。", "12345"])
def test_what_is_no_form(text):
    with pytest.raises(InputError, match=r"`form` has a line '.*', expected lengths such as"):
        Form.parse(text)


@pytest.mark.parametrize(
    ("opening", "fits"),
    [
        ("", True),
        ("一曲", True),
        ("一曲新词酒一杯", True),
        ("一曲新词酒一杯，去年", True),
        ("一曲新词酒一杯。", False),
        ("一曲新词酒一杯去", False),
        ("一曲，", False),
        (POEM[0], True),
        (POEM[0] + "\n夕", True),
        (POEM[0] + "夕", False),
        ("\n".join(POEM) + "\n\n", False),  # nothing is left to be written
    ],
)
def test_how_a_poem_can_begin(opening, fits):
    assert Form.of(POEM).begins(opening) is fits


@pytest.fixture
def forms():
    known = {
        "浣溪沙": "7。/7。",
        "望江南・忆江南": "3，5。",
        "江南好": "3，5。",
        "蝶恋花": "7，4。",
    }
    counted = [(tune, Form.parse(form)) for tune, form in known.items()]
    return Forms.of([*counted, ("浣溪沙", Form.parse("7。/7")), ("浣溪沙", Form.parse("7。/7。"))])


def test_forms_are_counted_by_tune(forms):
    assert forms.counts["浣溪沙"] == {Form.parse("7。/7。"): 2, Form.parse("7。/7"): 1}
    assert "江南" not in forms
    assert sum(count for _, _, count in forms.all()) == 6
    assert forms.usual_end() == "。"


def test_near_tunes_are_named(forms):
    assert forms.near("浣溪纱") == ["浣溪沙"]
    assert forms.near("江南") == ["望江南・忆江南", "江南好"]
    assert forms.near("xyz") == []


@pytest.mark.parametrize("content", [None, [], {"a": 3}, {"a": {"x": 1}}, {"a": {"7": "x"}}])
def test_damaged_forms_are_told(content):
    with pytest.raises(ElmanError, match="the forms of the run are damaged"):
        Forms.from_json(content)
