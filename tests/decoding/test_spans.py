from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB2, IOBES, Entities

from elman.decoding.spans import SCHEMES, Span, allowed, guess, spans, tags
from elman.errors import InputError

OTHERS = {"BIO": IOB2, "BIOES": IOBES, "BILOU": BILOU}


def labels(scheme: str) -> list[str]:
    prefixes = dict.fromkeys(SCHEMES[scheme])
    return ["O", *prefixes, *(f"{prefix}-Y-Z" for prefix in prefixes)]


def written(scheme: str, length: int) -> set[tuple[str, ...]]:
    """The tags of all ways to lay spans over a sequence."""

    def ways(begin: int):
        if begin == length:
            yield []
            return
        yield from ways(begin + 1)
        for end in range(begin + 1, length + 1):
            for label, rest in itertools.product(("", "Y-Z"), ways(end)):
                yield [Span(label, begin, end), *rest]

    return {tuple(tags(way, length, scheme)) for way in ways(0)}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_constraints_allow_what_spans_can_be_written_as_and_nothing_else(scheme, length):
    names, (transitions, starts, ends) = labels(scheme), allowed(labels(scheme), scheme)
    possible = set()
    for path in itertools.product(range(len(names)), repeat=length):
        if starts[path[0]] and ends[path[-1]]:  # noqa: SIM102
            if all(transitions[pair] for pair in itertools.pairwise(path)):
                possible.add(tuple(names[k] for k in path))
    assert possible == written(scheme, length)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_are_those_that_were_written(scheme):
    for length in range(5):
        for each in written(scheme, length):
            found = spans(each, scheme)
            assert tags(found, length, scheme) == list(each)
            if scheme in OTHERS:
                others = Entities([list(each)], OTHERS[scheme]).entities[0]
                assert found == [Span(e.tag.strip("_"), e.start, e.end) for e in others]


@given(st.lists(st.sampled_from(labels("BIO") + labels("BIOES")), max_size=7))
def test_spans_of_tags_that_do_not_fit_are_as_in_conll(each):
    found = [
        Span(label.strip("_"), begin, last + 1) for label, begin, last in get_entities(list(each))
    ]
    assert spans(each, "BIOES") == found


def test_a_scheme_is_known_by_its_labels():
    assert guess(["O", "B-X", "I-X", "B-Y"]) == "BIO"
    assert guess(["O", "B-X", "E-X"]) == guess(["S-X"]) == "BIOES"
    assert guess(["O", "U-X", "L-X"]) == "BILOU"
    assert guess(["B", "M", "E", "S"]) == "BMES"
    assert guess(["B", "I"]) == "BIO"
    assert guess(["NOUN", "VERB"]) is guess(["O"]) is guess(["B-X", "X"]) is guess([]) is None


def test_what_does_not_fit():
    with pytest.raises(InputError, match="must be one of BIO, BIOES, BILOU, BMES, received 'IOB'"):
        spans(["O"], "IOB")
    with pytest.raises(
        InputError,
        match="'E-X' is no tag of the scheme BIO, whose tags are O and those that begin with B, I",
    ):
        allowed(["O", "B-X", "E-X"], "BIO")
    for wrong in (Span("X", 2, 2), Span("X", 2, 5), Span("X", 0, 2)):
        with pytest.raises(InputError, match=f"received X from {wrong.begin} to {wrong.end}"):
            tags([Span("Y", 1, 2), wrong], 4, "BIO")
