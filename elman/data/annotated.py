"""Texts whose entities are marked, and the relations between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from elman.data.jsonlines import read_values, text_of
from elman.data.place import Place
from elman.errors import ElmanError, brief


class Entity(NamedTuple):
    """What a text names.

    Attributes:
        start, end: the places of its first character, and behind its last.
        label: its kind, such as "person".
    """

    start: int
    end: int
    label: str


class Relation(NamedTuple):
    """What an entity has to do with another.

    Attributes:
        head, tail: their places among the entities of the text.
        label: such as "born in".
    """

    head: int
    tail: int
    label: str


class Annotated(NamedTuple):
    """A text with its entities and relations.

    Attributes:
        text: mostly a sentence.
        entities: in the order of the text, apart from each other.
        relations: between them.
        place: where it was read.
    """

    text: str
    entities: tuple[Entity, ...]
    relations: tuple[Relation, ...]
    place: Place


def read_jsonl(path: Path, name: str) -> Iterator[Annotated]:
    """Read a JSON object a line, offsets in characters, relations by the entities' places::

        {"text": "Ada Lovelace was born in London.",
         "entities": [{"start": 0, "end": 12, "label": "person"},
                      {"start": 25, "end": 31, "label": "place"}],
         "relations": [{"from": 0, "to": 1, "label": "born in"}]}

    Raises:
        ElmanError: a line is something else, or an entity lies outside of the text or in another.
    """
    for place, value in read_values(path, name):
        text = text_of(value, "text", place)
        marked = [
            Entity(*_numbers(each, "start", "end", place), text_of(each, "label", place))
            for each in _listed(value, "entities", place)
        ]
        order = sorted(range(len(marked)), key=lambda k: marked[k].start)
        entities, end = tuple(marked[k] for k in order), 0
        for entity in entities:
            if not end <= entity.start < entity.end <= len(text):
                raise ElmanError(
                    f"{place}: an entity goes from {entity.start} to {entity.end}, expected one "
                    f"within the text of {len(text)} characters that begins behind the one before."
                )
            end = entity.end
        relations = []
        for each in _listed(value, "relations", place):
            head, tail = _numbers(each, "from", "to", place)
            if head == tail or not (0 <= head < len(order) and 0 <= tail < len(order)):
                raise ElmanError(
                    f"{place}: a relation goes from {head} to {tail}, expected the places of two "
                    f"of the {len(order)} entities, counted from 0."
                )
            label = text_of(each, "label", place)
            relations.append(Relation(order.index(head), order.index(tail), label))
        yield Annotated(text, entities, tuple(relations), place)


def _listed(value: Mapping[str, Any], key: str, place: Place) -> list[Any]:
    found = value.get(key, [])
    if not isinstance(found, list):
        raise ElmanError(f"{place}: `{key}` is {brief(found)}, expected a list.")
    return found


def _numbers(value: Any, first: str, second: str, place: Place) -> tuple[int, int]:
    found = [value.get(key) if isinstance(value, Mapping) else None for key in (first, second)]
    if any(type(number) is not int for number in found):
        raise ElmanError(
            f'{place}: received {brief(value)}, expected {{"{first}": a whole number, '
            f'"{second}": another, "label": a text}}.'
        )
    return found[0], found[1]  # type: ignore[return-value]
