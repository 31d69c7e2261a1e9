"""Spans of a sequence as a tag for each of its tokens, and back: BIO and its kin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from elman.errors import InputError, brief
from elman.layers.crf import Constraints


class Scheme(NamedTuple):
    """The prefixes of a span's tags: of its first token, those inside, its last, and a lone one."""

    first: str
    inside: str
    last: str
    single: str


SCHEMES = {
    "BIO": Scheme("B", "I", "I", "B"),
    "BIOES": Scheme("B", "I", "E", "S"),
    "BILOU": Scheme("B", "I", "L", "U"),
    "BMES": Scheme("B", "M", "E", "S"),
}
"""Ways to write spans as tags such as ``B-PER``, with ``O`` for what is in no span (Ramshaw &
Marcus, 1995; Ratinov & Roth, 2009; BMES as for the words of Chinese). Where spans have no label, as
words have none, a tag is its prefix alone."""

OUTSIDE = "O"


class Span(NamedTuple):
    """A label of the tokens from ``begin`` up to, and without, ``end``; "" where there is none."""

    label: str
    begin: int
    end: int


def guess(labels: Iterable[str]) -> str | None:
    """The first of :data:`SCHEMES` that all labels fit; None where they are no tags of spans."""
    labels = set(labels)
    if not labels - {OUTSIDE}:
        return None
    return next((name for name, scheme in SCHEMES.items() if _fit(labels, scheme)), None)


def fits(tags: Iterable[str], scheme: str) -> bool:
    """Whether all tags are of a scheme, in whatever order they stand."""
    return _fit(tags, _scheme(scheme))


def allowed(labels: Sequence[str], scheme: str) -> Constraints:
    """Which of the labels may begin a sequence, follow each other and end it.

    Args:
        labels: in the order of their ids.
        scheme: a name of :data:`SCHEMES`.

    Raises:
        InputError: there is no such scheme, or a label is none of it.
    """
    its = _scheme(scheme)
    for label in labels:
        if not _fit([label], its):
            raise InputError(
                f"{label!r} is no tag of the scheme {scheme}, whose tags are O and those that "
                f"begin with {', '.join(dict.fromkeys(its))}."
            )
    goes_on = [_prefix(label) in (its.inside, its.last) for label in labels]
    may_end = [_prefix(label) in (its.last, its.single, OUTSIDE) for label in labels]
    transitions = [
        [
            _continues(its, before, label) if goes_on[k] else may_end[j]
            for k, label in enumerate(labels)
        ]
        for j, before in enumerate(labels)
    ]
    starts = [not on for on in goes_on]
    return Constraints(torch.tensor(transitions), torch.tensor(starts), torch.tensor(may_end))


def spans(tags: Sequence[str], scheme: str) -> list[Span]:
    """The spans that tags write, in order.

    A tag that cannot follow the one before it begins a span, as in the scores of CoNLL.

    Args:
        tags: of one sequence, such as ``["B-PER", "I-PER", "O"]``.
        scheme: a name of :data:`SCHEMES`.

    Raises:
        InputError: there is no such scheme.
    """
    its, before = _scheme(scheme), OUTSIDE
    found: list[Span] = []
    for k, tag in enumerate(tags):
        if found and _continues(its, before, tag):
            found[-1] = found[-1]._replace(end=k + 1)
        elif tag != OUTSIDE:
            found.append(Span(_label(tag), k, k + 1))
        before = tag
    return found


def tags(spans: Iterable[Span], length: int, scheme: str) -> list[str]:
    """The tags of a sequence of ``length`` tokens that write these spans.

    Raises:
        InputError: there is no such scheme, or a span is empty, reaches out of the sequence or into
            another.
    """
    its, written = _scheme(scheme), [OUTSIDE] * length
    for span in spans:
        label, begin, end = span
        if not 0 <= begin < end <= length or set(written[begin:end]) != {OUTSIDE}:
            raise InputError(
                f"spans must lie within the {length} tokens and apart from each other, received "
                f"{label} from {begin} to {end}."
            )
        if end - begin == 1:
            prefixes = [its.single]
        else:
            prefixes = [its.first, *[its.inside] * (end - begin - 2), its.last]
        written[begin:end] = [f"{prefix}-{label}" if label else prefix for prefix in prefixes]
    return written


def _scheme(name: str) -> Scheme:
    if name not in SCHEMES:
        raise InputError(f"the scheme must be one of {', '.join(SCHEMES)}, received {brief(name)}.")
    return SCHEMES[name]


def _prefix(tag: str) -> str:
    return tag.partition("-")[0]


def _label(tag: str) -> str:
    return tag.partition("-")[2]


def _fit(labels: Iterable[str], scheme: Scheme) -> bool:
    return all(label == OUTSIDE or _prefix(label) in scheme for label in labels)


def _continues(scheme: Scheme, before: str, tag: str) -> bool:
    """Whether ``tag`` goes on with the span that the tag before it has begun."""
    open_, on = (scheme.first, scheme.inside), (scheme.inside, scheme.last)
    return _prefix(before) in open_ and _prefix(tag) in on and _label(before) == _label(tag)
