"""Information extraction: what a text names, and what that has to do with each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from elman.data import kinds
from elman.data.annotated import Annotated
from elman.data.batches import in_order
from elman.data.lexicon import Lexicon
from elman.data.vectors import Vectors
from elman.data.words import split_sentence
from elman.decoding.spans import Span, spans, tags
from elman.errors import ElmanError, brief
from elman.networks.relations import Pairs, RelationNetwork, every_pair
from elman.networks.tagger import TaggerBatch, TaggerNetwork, TaggerSettings
from elman.tasks.scores import counted, scored, spans_of, table
from elman.tasks.sentences import Names, SentenceTask, given_tags
from elman.training.gradients import moved
from elman.training.measures import Sums, sums_of
from elman.training.settings import DataSettings, Settings, TrainingSettings, option
from elman.training.task import Loss, Measure, Verb

_SCHEME = "BIO"
_PROBABLE = 0.5
_ENTITY, _RELATION = "entity", "relation"


@dataclass
class ExtractSettings(TrainingSettings, TaggerSettings, DataSettings):
    """The settings of an extractor."""

    relation_hidden: int = option(
        100, "Units of what tells the relations of two entities.", least=1, below=2**31
    )


class Passage(NamedTuple):
    """A text as the network reads it, and what is marked in it.

    Attributes:
        tokens: its words and marks.
        tags: that write its entities.
        features: none.
        words: the tokens again.
        entities: as spans of tokens.
        relations: the places of two entities, and a label.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    features: tuple[tuple[str, ...], ...]
    words: tuple[str, ...]
    entities: tuple[Span, ...]
    relations: tuple[tuple[int, int, str], ...]


class Passages(NamedTuple):
    """A batch of texts.

    Attributes:
        input: what the network reads.
        unseen: (T, B) bool, words that were not trained on.
        pairs: of the entities that are marked.
        relations: (P, R) bool, which relations a pair has.
    """

    input: TaggerBatch
    unseen: Tensor
    pairs: Pairs
    relations: Tensor


class Fact(NamedTuple):
    """A relation that a model has found.

    Attributes:
        label: of the relation.
        head, tail: the entities.
        probability: of the relation.
    """

    label: str
    head: Span
    tail: Span
    probability: float


class ExtractorNetwork(TaggerNetwork):
    """A tagger that finds entities, and what tells their relations, reading the same outputs.

    Args:
        names: what the tagger knows.
        between: (K, K, R) bool, which labels of entities may have which relations.
        settings: of both.
        vectors: what the word embedding starts from.
    """

    def __init__(self, names: Names, between: Tensor, settings: Any, vectors: Vectors | None):
        super().__init__(names.words, (), names.tags.names, settings, vectors)
        self.relations = RelationNetwork(
            self.recurrent.output_size, between, settings.relation_hidden, settings.dropout
        )


def extract(job: Extractor, texts: Iterable[str], settings: Settings) -> Iterator[dict[str, Any]]:
    """Entities and relations of texts; a mapping for each."""
    return in_order(texts, job.settings.batch, len, job.find)


def triples(found: dict[str, Any]) -> str:
    """What was found, as people read it: a relation a line, and the entities that have none."""
    entities, relations = found["entities"], found["relations"]
    lines = [
        f"{entities[each['from']]['text']} | {each['label']} | {entities[each['to']]['text']}"
        f"  {each['confidence']:.2f}"
        for each in relations
    ]
    related = {each[end] for each in relations for end in ("from", "to")}
    lines += [
        f"{each['text']} ({each['label']})  {each['confidence']:.2f}"
        for k, each in enumerate(entities)
        if k not in related
    ]
    return "\n".join(lines)


EXTRACT = Verb(
    "extract",
    "Find the entities of texts and their relations.",
    "RUN 'Emmy Noether was born in Erlangen.'\nRUN --file lives.txt --output facts.jsonl",
    extract,
    "Texts",
    each=True,
    show=triples,
)


class Extractor(SentenceTask):
    """Find what a text names, and what that has to do with each other."""

    name = "extract"
    example = "lives-en --batch 8 --epochs 40"
    headline = Measure("f1", higher=True)
    Settings = ExtractSettings
    verbs = (EXTRACT,)
    kind = kinds.ANNOTATIONS
    labels: Lexicon
    relations: Lexicon
    between: set[tuple[str, str, str]]
    model: ExtractorNetwork

    # -- data ---------------------------------------------------------------------------------

    def as_example(self, record: Annotated) -> Passage:
        """A text as tokens, and its entities as spans of these.

        Raises:
            ElmanError: an entity begins or ends within a word.
        """
        located = located_tokens(record.text)
        begins = {start: k for k, (_, start) in enumerate(located)}
        ends = {start + len(token): k + 1 for k, (token, start) in enumerate(located)}
        entities = []
        for start, end, label in record.entities:
            if start not in begins or end not in ends:
                raise ElmanError(
                    f"{record.place}: the entity {record.text[start:end]!r} begins or ends within "
                    "a word, expected whole ones: mark them."
                )
            entities.append(Span(label, begins[start], ends[end]))
        words = tuple(token for token, _ in located)
        written = tuple(tags(entities, len(words), _SCHEME))
        return Passage(words, written, (), words, tuple(entities), record.relations)

    def collect(self) -> None:
        """Collect what the model needs to know by name, and fit the settings to it."""
        super().collect()
        train, *others = (self.examples(part) for part in ("train", "validation", "test"))
        names = (label for each in chain(train, *others) for *_, label in each.relations)
        between = {
            (each.entities[head].label, label, each.entities[tail].label)
            for each in train
            for head, tail, label in each.relations
        }
        self._relate(Lexicon.count(names), between)

    def _relate(self, relations: Lexicon, between: set[tuple[str, str, str]]) -> None:
        self.relations, self.between = relations, between
        named = (tag.partition("-")[2] for tag in self.names.tags)
        self.labels = Lexicon(dict.fromkeys(label for label in named if label))

    def assets(self) -> dict[str, Any]:
        """What a tagger has, the relations, and between which kinds of entities they are."""
        between = [list(each) for each in sorted(self.between)]
        return {**super().assets(), "relations": self.relations.to_json(), "between": between}

    @classmethod
    def restore(cls, settings: Any, assets: dict[str, Any]) -> Any:
        """The job of an earlier run; its data is read when it is needed."""
        task, between = super().restore(settings, assets), assets["between"]
        try:
            known = {(head, label, tail) for head, label, tail in between}
        except (TypeError, ValueError):
            raise ElmanError(
                f"what relations are between is {brief(between)}, expected a list of triples."
            ) from None
        task._relate(Lexicon.from_json(assets["relations"]), known)
        return task

    def collate(self, examples: Sequence[Any]) -> Any:
        """Texts side by side, and the pairs of their entities."""
        pairs = every_pair([range(len(each.entities)) for each in examples])
        known = {
            (k, head, tail, label)
            for k, each in enumerate(examples)
            for head, tail, label in each.relations
        }
        rows = [[(*pair, label) in known for label in self.relations] for pair in pairs]
        targets = torch.tensor(rows, dtype=torch.bool).view(len(pairs), len(self.relations))
        batch = super().collate(examples)
        return Passages(*batch, self._pairs([each.entities for each in examples]), targets)

    def _pairs(self, entities: Sequence[Sequence[Span]]) -> Pairs:
        ids = {label: id for id, label in enumerate(self.labels)}
        return Pairs.of([[(e.begin, e.end, ids[e.label]) for e in each] for each in entities])

    # -- learning and measuring ---------------------------------------------------------------

    def build(self) -> ExtractorNetwork:
        """A network of the settings' cell and sizes."""
        kinds = len(self.labels)
        between = torch.zeros(kinds, kinds, len(self.relations), dtype=torch.bool)
        for head, label, tail in self.between:
            between[(*self.labels.ids([head, tail]), *self.relations.ids([label]))] = True
        return ExtractorNetwork(self.names, between, self.settings, self._vectors)

    def loss(self, model: Any, batch: Passages, carry: Any) -> Loss:
        """−log P of the tags and of the relations of all pairs, in nats for each token."""
        y = model.read(batch.input)
        return self._joint(model, y, model.output(y), batch)

    def _joint(self, model: Any, y: Tensor, emissions: Tensor, batch: Passages) -> Loss:
        tagging = self.tag_loss(model, emissions, batch)
        found = model.relations(y, batch.pairs)
        relating = binary_cross_entropy_with_logits(
            found, batch.relations.to(found), reduction="sum"
        )
        return tagging._replace(value=tagging.value + relating / max(1, tagging.count))

    def tally(self, model: Any, batch: Passages, carry: Any) -> tuple[Sums, Any]:
        """The loss, and which entities and relations were found where which are."""
        y = model.read(batch.input)
        emissions = model.output(y)
        given = self.named(given_tags(batch.input))
        found = self.named(model.decode(emissions, batch.input.words.lengths))
        facts = self._facts(model, y, [spans(tags, _SCHEME) for tags in found])
        known = self._known(batch, given)
        entities = zip(map(spans_of, given), map(spans_of, found), strict=True)
        relations = zip(known, ({fact[:3] for fact in each} for each in facts), strict=True)
        sums = sums_of(self._joint(model, y, emissions, batch))
        return sums | counted(entities, _ENTITY) | counted(relations, _RELATION), None

    def _known(self, batch: Passages, tags: Sequence[Sequence[str]]) -> list[set[Any]]:
        """The relations that the data has in each sentence."""
        known: list[set[Any]] = [set() for _ in tags]
        pairs = every_pair([spans(each, _SCHEME) for each in tags])
        for (k, head, tail), row in zip(pairs, batch.relations.tolist(), strict=True):
            names = (name for name, there in zip(self.relations, row, strict=True) if there)
            known[k] |= {(name, head, tail) for name in names}
        return known

    def measures(self, sums: Sums) -> dict[str, float]:
        """F1 of entities and relations together; precision, recall and F1 of each."""
        if not any(name.startswith(_ENTITY) for name in sums):
            return {}
        found = {"f1": scored(sums, _ENTITY, _RELATION)["f1"]}
        for what in (_ENTITY, _RELATION):
            found |= {f"{what}_{name}": figure for name, figure in scored(sums, what).items()}
        return found

    def tables(self, sums: Sums) -> dict[str, Any]:
        """Precision, recall and F1 of each kind of entity and of each relation."""
        return {"entities": table(sums, _ENTITY), "relations": table(sums, _RELATION)}

    def _facts(self, model: Any, y: Tensor, entities: Sequence[Sequence[Span]]) -> list[list[Fact]]:
        """The relations between entities, of each sentence."""
        pairs = moved(self._pairs(entities), y.device)
        probable = model.relations(y, pairs).sigmoid().tolist()
        found: list[list[Fact]] = [[] for _ in entities]
        for (sentence, head, tail), row in zip(every_pair(entities), probable, strict=True):
            for label, probability in zip(self.relations, row, strict=True):
                if probability > _PROBABLE:
                    found[sentence].append(Fact(label, head, tail, probability))
        return found

    # -- what it does -------------------------------------------------------------------------

    @torch.inference_mode()
    def find(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The entities and relations of texts, in the form that their data is read in."""
        located = [located_tokens(text) for text in texts]
        found: list[dict[str, Any]] = [
            {"text": text, "entities": [], "relations": []} for text in texts
        ]
        there = [k for k, tokens in enumerate(located) if tokens]
        if not there:
            return found
        words = [tuple(token for token, _ in located[k]) for k in there]
        model = self.model.eval()
        batch = super().collate([Passage(each, (), (), each, (), ()) for each in words])
        input = moved(batch.input, model.output.weight.device)
        y, lengths = model.read(input), input.words.lengths
        emissions = model.output(y)
        paths, marginals = model.decode(emissions, lengths), model.marginals(emissions, lengths)
        entities = [spans(each, _SCHEME) for each in self.named(paths)]
        facts = self._facts(model, y, entities)
        for b, k in enumerate(there):
            steps = marginals[range(len(paths[b])), b, paths[b]].tolist()
            found[k]["entities"] = [
                _marked(texts[k], located[k], span, min(steps[span.begin : span.end]))
                for span in entities[b]
            ]
            found[k]["relations"] = [
                {
                    "from": entities[b].index(fact.head), "to": entities[b].index(fact.tail),
                    "label": fact.label, "confidence": round(fact.probability, 4),
                }
                for fact in facts[b]
            ]  # fmt: skip
        return found


def located_tokens(text: str) -> list[tuple[str, int]]:
    """The words and marks of a text, and where each begins."""
    found, at = [], 0
    for token in split_sentence(text):
        at = text.index(token, at)
        found.append((token, at))
        at += len(token)
    return found


def _marked(text: str, located: list[tuple[str, int]], span: Span, p: float) -> dict[str, Any]:
    last, begin = located[span.end - 1]
    start, end = located[span.begin][1], begin + len(last)
    marked = {"text": text[start:end], "label": span.label, "start": start, "end": end}
    return marked | {"confidence": round(p, 4)}
