from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman.errors import brief, one_line
from elman.training import schema
from elman.training.schema import Mismatch


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (schema.whole(), [0, 2**63 - 1], [-1, 2**63, True, 1.0, "1", None, math.nan]),
        (schema.whole(1, 3), [1, 3], [0, 4]),
        (schema.number(), [0, -1.5, 2**62], [math.inf, math.nan, 10**400, True, "1", None, [1]]),
        (schema.number(0, finite=False), [0.0, math.inf], [-1, -math.inf, math.nan]),
        (schema.text(), ["", "界"], [1, None, b"a", "a\0b"]),
        (schema.text("a", "b"), ["a"], ["c", ""]),
        (schema.flag, [True, False], [0, 1, None, "true"]),
        (schema.optional(schema.whole()), [None, 1], ["", -1]),
        (schema.listed(schema.whole(), least=1), [[1], [1, 2]], [[], (1,), [1, "x"], "1", {}]),
        (schema.anything, [None, [], 1], []),
        (
            schema.record({"a": schema.whole()}, {"b": schema.text()}),
            [{"a": 1}, {"a": 1, "b": ""}],
            [{}, {"b": ""}, {"a": 1, "b": 1}, {"a": 1, "c": 1}, {"a": 1, 2: 1}, [], None],
        ),
        (schema.record({}, others=schema.whole()), [{}, {"x": 1}], [{"x": "1"}]),
    ],
)
def test_rules(rule, good, bad):
    for value in good:
        rule(value, "here")
    for value in bad:
        with pytest.raises(Mismatch, match=r"here"):
            rule(value, "here")


def test_tensors():
    like = torch.zeros(2, 3)
    rule = schema.tensor(like)
    rule(torch.ones(2, 3), "w")
    for wrong in (torch.ones(3, 2), torch.ones(2, 3).double(), torch.full((2, 3), math.nan), [1]):
        with pytest.raises(Mismatch, match="'w' "):
            rule(wrong, "w")
    schema.tensor(like, cast=True)(torch.ones(2, 3).half(), "w")
    for dtype in (torch.bool, torch.int64, torch.complex64):
        other = torch.ones(2, 3).to(dtype)
        for want, got in ((like, other), (other, like)):
            with pytest.raises(Mismatch, match="expected a tensor"):
                schema.tensor(want, cast=True)(got, "w")
    infinite = torch.tensor([math.inf, 1.0])
    schema.tensor(infinite, infinite=True)(infinite, "w")
    with pytest.raises(Mismatch, match="infinite numbers or NaN"):
        schema.tensor(infinite)(infinite, "w")
    with pytest.raises(Mismatch, match="has NaN"):
        schema.tensor(infinite, infinite=True)(infinite * 0, "w")
    with pytest.raises(Mismatch, match="has -1, expected no less than 0"):
        schema.tensor(infinite, least=0.0)(torch.tensor([0.0, -1.0]), "w")


def test_a_field_is_named_by_its_place():
    rule = schema.record({"a": schema.listed(schema.record({"b": schema.whole()}))})
    with pytest.raises(
        Mismatch, match=r"^'a\[1\].b' is 'x', expected a whole number of at least 0$"
    ):
        rule({"a": [{"b": 1}, {"b": "x"}]}, "")
    with pytest.raises(Mismatch, match=r"^'a\[0\].b' is missing$"):
        rule({"a": [{}]}, "")
    with pytest.raises(Mismatch, match=r"^'a\[0\].c' is unknown, expected b$"):
        rule({"a": [{"b": 1, "c": 1}]}, "")


class Nasty:
    def __repr__(self):
        raise RuntimeError("no")


nested = st.recursive(
    st.none() | st.integers() | st.text() | st.floats() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=nested)
def test_a_value_in_a_message_is_one_short_line(value):
    shown = brief(value)
    assert len(shown) <= 60
    assert shown.splitlines() == [shown]


def test_values_that_cannot_be_shown():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert brief(deep) == "[[[[...]]]]"
    assert brief(10**5000) == "an integer of 5,000 digits"
    assert brief(-(10**70)) == "an integer of 70 digits"
    assert brief(12345) == "12345"
    assert "Nasty" in brief(Nasty())
    assert one_line("a\n  b" + "c" * 99, 10) == "a bcccccc…"
