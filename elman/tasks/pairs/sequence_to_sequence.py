"""Sequence to sequence: what translation, dialogue and their kin share."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from elman.data.batches import NONE, Batches, batched, in_order
from elman.data.pairs import Pair
from elman.data.shards import Shard
from elman.data.text import STDIN
from elman.data.vocabulary import KINDS, Vocabulary
from elman.decoding import Hypothesis, beam
from elman.errors import ElmanError, InputError
from elman.networks.encoder_decoder import EncoderDecoder, EncoderDecoderSettings
from elman.tasks.pairs.sides import Batch, Coded, Side
from elman.tasks.records import RecordTask
from elman.training.measures import Loss, Sums, perplexity
from elman.training.settings import DataSettings, Settings, TrainingSettings, option

Written = TypeVar("Written")

_logger = logging.getLogger("elman")


@dataclass
class SequenceToSequenceSettings(TrainingSettings, EncoderDecoderSettings, DataSettings):
    """What every job that turns one text into another can be told."""

    tokens: str = option("bpe", "What texts are cut into.", choices=KINDS)
    target_tokens: str | None = option(
        None, "What targets are cut into.", choices=KINDS, unset="as sources"
    )
    vocabulary_size: int | None = option(
        None, "At most so many tokens a side, such as 8000.", least=2, unset="all; 4096 for bpe"
    )
    min_count: int = option(1, "Tokens that are rarer become <unk>.", least=1)
    shared: bool = option(False, "One vocabulary and one embedding for both sides.")
    lowercase: bool = option(False, "Read and write lower case.")
    reverse: bool = option(False, "Read sources from their end (Sutskever et al., 2014).")
    longest: int = option(
        100, "Pairs with more tokens on a side are not learned from.", least=1, below=10**6
    )
    label_smoothing: float = option(
        0.0, "Probability that the target shares with all tokens.", least=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shared and self.target_tokens not in (None, self.tokens):
            raise InputError(
                f"a `shared` vocabulary has one kind of tokens, received {self.tokens} and "
                f"`target_tokens` {self.target_tokens}: leave out the one or the other."
            )


@dataclass
class BeamSettings(Settings):
    """How a beam searches."""

    beam: int = option(5, "Width of the beam; 1 takes the likeliest token always.", least=1)
    length_penalty: float = option(
        0.6, "The beam's preference for long targets, from 0 to 1.", least=0, below=100
    )


GREEDY = BeamSettings(beam=1)
"""How what is held out is written while a model learns."""


class SequenceToSequence(RecordTask):
    """A job that turns one text into another, with an encoder and a decoder.

    Those who write one say what its pairs are: the records of a ``kind`` and what :meth:`pairs`
    makes of them, or :meth:`records` of their own; how what is written is judged, in :meth:`judge`
    and :meth:`measures`; and its verbs, by :meth:`write`.

    Attributes:
        source, target: the tokens of the two sides.
    """

    unit = "tokens"
    Settings = SequenceToSequenceSettings
    Evaluation = BeamSettings
    measured_together = True
    source: Side
    target: Side
    settings: SequenceToSequenceSettings
    model: EncoderDecoder

    def __init__(self, settings: Any, data: Iterable[str] = (), kept: Path | None = None):
        super().__init__(settings, data, kept)
        self._beam = GREEDY
        self._coded: dict[str, list[Coded]] = {}

    # -- what a job says of itself --------------------------------------------------------------

    def records(self, part: str) -> Sequence[Any]:
        """The records of "train", "validation" or "test"; none where there is no such part."""
        return self.parts[part]

    def pairs(self, records: Sequence[Any]) -> Sequence[Pair]:
        """The pairs that records give; by default they are pairs."""
        return records

    def judge(self, written: list[str], references: list[str]) -> Sums:
        """What adds up of what was written; by default how much of it is as the references."""
        return {"exact": sum(map(str.__eq__, written, references)), "written": len(written)}

    def measures(self, sums: Sums) -> dict[str, float]:
        """Perplexity, and the share of targets that are written as they are, token for token."""
        if "written" not in sums:
            return {}
        return {
            "exact": sums["exact"] / sums["written"],
            "perplexity": perplexity(sums["loss"] / sums["count"]),
        }

    def limits(self, lengths: Tensor) -> Tensor:
        """The most tokens that are written for sources of these lengths (B)."""
        return 2 * lengths + 10

    # -- data -----------------------------------------------------------------------------------

    def collect(self) -> None:
        """Collect the vocabularies of the pairs that are learned from."""
        its, pairs = self.settings, self.pairs(self.records("train"))
        sides = [[pair.source for pair in pairs], [pair.target for pair in pairs]]
        kinds = [its.tokens, its.target_tokens or its.tokens]
        if its.shared:
            sides, kinds = [sides[0] + sides[1]], kinds[:1]
        made = [
            Vocabulary.build(
                # A token never goes from one text into the next.
                ((text.lower() if its.lowercase else text) + "\n" for text in texts),
                kind,
                size=its.vocabulary_size,
                min_count=its.min_count,
            )
            for texts, kind in zip(sides, kinds, strict=True)
        ]
        self._know(made[0], made[-1])

    def _know(self, source: Vocabulary, target: Vocabulary) -> None:
        its = self.settings
        self.source, self.target = Side(source, its.lowercase), Side(target, its.lowercase)

    def assets(self) -> dict[str, Any]:
        """The vocabularies, and standard input if it is among the data."""
        source, target = self.source.vocabulary, self.target.vocabulary
        return {**super().assets(), "source": source.to_json(), "target": target.to_json()}

    @classmethod
    def restore(cls, settings: Any, assets: dict[str, Any]) -> Self:
        """The job of an earlier run; its data is read when it is needed."""
        task = cls(settings, kept=assets.get(STDIN))
        task._know(*(Vocabulary.from_json(assets[side]) for side in ("source", "target")))
        return task

    def batches(
        self,
        part: str,
        epoch: int | None = None,
        shard: Shard = Shard(),  # noqa: B008
    ) -> Batches:
        """Pairs of similar lengths side by side."""
        if part not in self._coded:
            pairs = self.pairs(self.records(part))
            self._coded[part] = self._code(pairs, learned=part == "train")
        return self._batched(self._coded[part], epoch, shard)

    def batches_of(self, data: list[str], shard: Shard = Shard()) -> Batches:  # noqa: B008
        """Pairs of other data."""
        return self._batched(self._code(self.pairs(self.kind.read(data, "test"))), None, shard)

    def _batched(self, coded: list[Coded], epoch: int | None, shard: Shard) -> Batches:
        if not coded:
            return NONE
        its, own = self.settings, 0.0
        if epoch is not None:
            own = its.scheduled_sampling * min(1.0, epoch / max(1, its.epochs - 1))
        collate = partial(Batch.of, end=self.target.end, own=own)
        lengths = [len(pair.source) + len(pair.target) for pair in coded]
        return batched(coded, its.batch, collate, self.order(epoch), shard, lengths)

    def _code(self, pairs: Sequence[Pair], learned: bool = False) -> list[Coded]:
        """Pairs as ids; of those that are learned from, the ones that are not too long."""
        most, found = self.settings.longest, []
        for pair in pairs:
            source, target = self.source.encode(pair.source), self.target.encode(pair.target)
            if not learned or max(len(source), len(target)) <= most:
                found.append(
                    Coded(source, [*target, self.target.end], self.target.plain(pair.target))
                )
        if pairs and not found:
            raise ElmanError(
                f"all of the {len(pairs):,} pairs have more than {most:,} tokens on a side: raise "
                "`longest`."
            )
        if len(found) < len(pairs):
            _logger.info(
                "pairs left out, with more than %s tokens on a side: %s of %s",
                f"{most:,}", f"{len(pairs) - len(found):,}", f"{len(pairs):,}",
            )  # fmt: skip
        sources = self._entered([pair.source for pair in found])
        return [pair._replace(source=ids) for pair, ids in zip(found, sources, strict=True)]

    def read(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids that the encoder reads of texts; see :meth:`_entered`."""
        return self._entered([self.source.encode(text) for text in texts])

    def _entered(self, sources: Sequence[list[int]]) -> list[list[int]]:
        """What the encoder reads of sources; one that is longer than any it has learned is cut."""
        most, step = self.settings.longest, -1 if self.settings.reverse else 1
        cut = [len(ids) for ids in sources if len(ids) > most]
        if cut:
            _logger.warning(
                "texts of more than %s tokens, the most that the model has learned from, are cut: "
                "%s, the longest with %s", f"{most:,}", f"{len(cut):,}", f"{max(cut):,}",
            )  # fmt: skip
        return [[*ids[:most][::step], self.source.end] for ids in sources]

    # -- learning and measuring -------------------------------------------------------------------

    def build(self) -> EncoderDecoder:
        """An encoder and a decoder of the settings' cell and sizes."""
        its = self.settings
        return EncoderDecoder(self.source.size, self.target.size, its, its.shared)

    def loss(self, model: Any, batch: Batch, carry: Any) -> Loss:
        """The mean of −log P of the targets' tokens, in nats; smoothed while it is learned."""
        logits, target = self._expected(model, batch)
        smoothing = self.settings.label_smoothing if model.training else 0.0
        return Loss(cross_entropy(logits, target, label_smoothing=smoothing), len(target))

    @staticmethod
    def _expected(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """The logits (N, V) of all tokens of the targets, and these (N)."""
        readouts, _ = model(batch.source, batch.lengths, batch.previous, batch.own)
        within = batch.target >= 0
        return model.output(readouts[within]), batch.target[within]

    def tally(self, model: Any, batch: Batch, carry: Any) -> tuple[Sums, Any]:
        """The loss, and how what is written is judged; with companions, of all as an average."""
        logits, (target, *_) = zip(*(self._expected(m, batch) for m in self.models), strict=True)
        single = torch.promote_types(logits[0].dtype, torch.float32)
        each = torch.stack([scores.log_softmax(-1, dtype=single) for scores in logits])
        expected = each.logsumexp(0) - math.log(len(logits))
        nats = -expected.gather(1, target.unsqueeze(1)).sum()
        found = self.search(batch, self._beam.beam, length_penalty=self._beam.length_penalty)
        written = [self.target.decode(each[0].tokens) for each in found]
        sums = {"loss": float(nats), "count": len(target)}
        return sums | self.judge(written, batch.references), None

    def evaluate(self, data: list[str] | None = None, **how: Any) -> dict[str, Any]:
        """The measures, of what a beam writes; see :class:`BeamSettings`."""
        self._beam = BeamSettings.of(how)
        try:
            return super().evaluate(data, **how)
        finally:
            self._beam = GREEDY

    def common(self) -> dict[str, Any]:
        """What is read and written: the tokens of both sides, and how texts become these."""
        its = self.settings
        tokens = [side.vocabulary.tokens for side in (self.source, self.target)]
        return {"tokens": tokens, "`lowercase`": its.lowercase, "`reverse`": its.reverse}

    # -- writing ----------------------------------------------------------------------------------

    @property
    def models(self) -> list[EncoderDecoder]:
        """The model, and those of the companions, whose probabilities are averaged."""
        return [self.model, *(other.model.eval() for other in self.companions)]

    def asked(self, batch: Batch) -> dict[str, Any]:
        """What :func:`elman.decoding.beam` and :func:`elman.decoding.draw` ask, for a batch."""
        models, device = self.models, self.model.output.weight.device
        source, lengths = batch.source.to(device), batch.lengths.to(device)
        with torch.inference_mode():
            states = [model.encode(source, lengths) for model in models]
        return {
            "step": [model.step for model in models],
            "state": states,
            "start": torch.full_like(lengths, self.target.end),
            "end": self.target.end,
            "max_length": self.limits(lengths),
            "allowed": self.target.writable(device),
        }

    def search(self, batch: Batch, width: int = 1, **how: Any) -> list[list[Hypothesis]]:
        """What a beam finds for each source of a batch; see :func:`elman.decoding.beam`."""
        return beam(**self.asked(batch), width=width, **how)

    def write(
        self, texts: Iterable[str], decode: Callable[[Batch], Iterable[Written]], nothing: Written
    ) -> Iterator[Written]:
        """What is written for each of the texts, in order.

        Args:
            texts: the sources.
            decode: what is written for a batch, such as :meth:`search`.
            nothing: what stands for an empty text.
        """
        self.model.eval()

        def written(some: list[str]) -> Iterator[Written]:
            sources = self.read([text for text in some if text.strip()])
            coded = [Coded(source, [], "") for source in sources]
            found = iter(decode(Batch.of(coded, self.target.end)) if coded else ())
            for text in some:
                yield next(found) if text.strip() else nothing

        yield from in_order(texts, self.settings.batch, len, written)

    def best(self, texts: Iterable[str], width: int = 1, **how: Any) -> Iterator[list[str]]:
        """What a beam writes for each of the texts, the best first; see :meth:`search`."""
        nothing = [Hypothesis([], 0.0, 0.0)]
        for found in self.write(texts, lambda batch: self.search(batch, width, **how), nothing):
            yield [self.target.decode(each.tokens) for each in found]

    def sample(self) -> str:
        """What the model writes for the first three pairs that are held out."""
        pairs = self.pairs(self.records("validation") or self.records("train"))[:3]
        found = self.best(pair.source for pair in pairs)
        return "\n\n".join(
            f"{pair.source}\n→ {best}\n({pair.target})"
            for pair, (best,) in zip(pairs, found, strict=True)
        )

    def describe_model(self) -> str:
        """Cell, sizes, attention and vocabularies."""
        its, sizes = self.settings, [c.hidden_size for c in self.model.decoder.cells]
        return (
            f"{its.cell} {sizes}, attention {its.attention}, {self.parameters():,} parameters, "
            f"{self.source.size:,} → {self.target.size:,} tokens, "
            f"{self.model.decoder.engine} engine"
        )
