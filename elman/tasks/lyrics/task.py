"""Lyrics: verse under the name of its tune, which fixes how long each of its lines is."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from elman.data.batches import Batches, batched, pad
from elman.data.forms import Forms
from elman.data.kinds import POEMS
from elman.data.shards import Shard
from elman.data.streams import PADDING
from elman.data.text import STDIN
from elman.data.vocabulary import Vocabulary
from elman.tasks.language_model.network import LanguageModel, LanguageNetworkSettings, signature
from elman.tasks.lyrics.judging import judge
from elman.tasks.lyrics.network import VerseModel
from elman.tasks.lyrics.prosody import Notation, Prosody, Verse
from elman.tasks.lyrics.writing import WRITING_VERSE, compose
from elman.tasks.records import RecordTask
from elman.training.measures import perplexity
from elman.training.settings import DataSettings, TrainingSettings, option
from elman.training.task import Loss, Measure, Recurrence, Signature, Sums


@dataclass
class LyricsSettings(TrainingSettings, LanguageNetworkSettings, DataSettings):
    """The settings of lyrics."""

    tokens: str = option("character", "What a form counts.", choices=("character", "word"))
    form: bool = option(True, "Tell the network the form; without, it is a plain language model.")
    untitled: float = option(
        0.1, "Share of the poems that are learned without their tune, to write without one.",
        least=0, below=1,
    )  # fmt: skip
    written: int = option(300, "Poems that are written to judge the model by; 0: none.", least=0)
    sample_temperature: float = option(
        0.8, "Temperature of these, and of the samples; 0 is greedy.", least=0, below=100
    )


class VerseBatch(NamedTuple):
    """Poems side by side.

    Attributes:
        inputs: tokens (T, B), or each with what is asked of the next (T, B, 1 + K).
        targets: the tokens of the bodies, each where the one before is read (T, B).
    """

    inputs: Tensor
    targets: Tensor


class Lyrics(RecordTask):
    """Learn verse by its tunes, and write in their forms."""

    name = "lyrics"
    unit = "tokens"
    example = "song-lyrics --hidden 256 --epochs 2"
    headline = Measure("perplexity")
    Settings = LyricsSettings
    verbs = (WRITING_VERSE,)
    kind = POEMS
    prosody: Prosody
    model: LanguageModel

    def collect(self) -> None:
        """Collect the tokens, tunes and forms of the poems that are learned from."""
        its, poems = self.settings, self.parts["train"]
        vocabulary = Vocabulary.build(
            (poem.text() for poem in poems),
            its.tokens, size=its.vocabulary_size, min_count=its.min_count,
        )  # fmt: skip
        verses = map(Notation(vocabulary).verse, poems)
        forms = Forms.of((verse.tune, verse.form) for verse in verses)
        self.prosody = Prosody(vocabulary, forms)

    @classmethod
    def restore(cls, settings: Any, assets: dict[str, Any]) -> Self:
        """The job of an earlier run; its poems are read when they are needed."""
        task = cls(settings, kept=assets.get(STDIN))
        vocabulary = Vocabulary.from_json(assets["vocabulary"])
        task.prosody = Prosody(vocabulary, Forms.from_json(assets["forms"]))
        return task

    def assets(self) -> dict[str, Any]:
        """The vocabulary and the forms, and standard input if it is one of the sources."""
        prosody = self.prosody
        own = {"vocabulary": prosody.vocabulary.to_json(), "forms": prosody.forms.to_json()}
        return super().assets() | own

    def build(self) -> LanguageModel:
        """A language model, which is told the form if ``form`` says so."""
        size = len(self.prosody.vocabulary)
        if not self.settings.form:
            return LanguageModel(size, self.settings)
        return VerseModel(size, self.settings, self.prosody.sizes)

    # -- learning and measuring ---------------------------------------------------------------

    @cached_property
    def verses(self) -> dict[str, list[Verse]]:
        """The poems of each part."""
        names = ("train", "validation", "test")
        return {name: list(map(self.prosody.verse, self.parts[name])) for name in names}

    def batches(
        self,
        part: str,
        epoch: int | None = None,
        shard: Shard = Shard(),  # noqa: B008
    ) -> Batches:
        """Poems of similar length side by side; to learn from, some without their tune."""
        verses = self.verses[part]
        if epoch is not None:
            draw = torch.Generator().manual_seed(epoch)
            nameless = (torch.rand(len(verses), generator=draw) < self.settings.untitled).tolist()
            verses = [
                verse._replace(tune="") if without else verse
                for verse, without in zip(verses, nameless, strict=True)
            ]
        return self._batched(verses, self.order(epoch), shard)

    def batches_of(self, data: list[str], shard: Shard = Shard()) -> Batches:  # noqa: B008
        """Other poems."""
        return self._batched(self._others(data), None, shard)

    def _others(self, data: list[str]) -> list[Verse]:
        return list(map(self.prosody.verse, self.kind.read(data, "test")))

    def _batched(self, verses: list[Verse], order: int | None, shard: Shard) -> Batches:
        lengths = [len(verse.body) for verse in verses]
        return batched(verses, self.settings.batch, self._collate, order, shard, lengths)

    def _collate(self, verses: list[Verse]) -> VerseBatch:
        inputs, targets = [], []
        for tune, body, form in verses:
            heading = self.prosody.heading(tune)
            ids = torch.tensor([*heading, *body[:-1]])
            if self.settings.form:
                asked = self.prosody.conditions(tune, form, len(heading))
                ids = torch.cat([ids[:, None], torch.from_numpy(asked)], 1)
            inputs.append(ids)
            targets.append(torch.tensor([PADDING] * (len(heading) - 1) + body.tolist()))
        return VerseBatch(pad(inputs)[0], pad(targets, PADDING)[0])

    def loss(self, model: Any, batch: VerseBatch, carry: Any) -> Loss:
        """The mean of −log P of the bodies' tokens, in nats."""
        y, _ = model.read(batch.inputs)
        return self._loss(model, y, batch.targets)

    def recurrence(self) -> Recurrence:
        """The recurrent network, between the tokens and −log P."""
        return Recurrence(
            self.model.recurrent,
            lambda batch: self.model.embed(batch.inputs),
            lambda y, batch: self._loss(self.model, y, batch.targets),
            goes_on=False,
        )

    def _loss(self, model: LanguageModel, y: Tensor, targets: Tensor) -> Loss:
        asked = targets != PADDING  # the heading is given
        targets = targets[asked]
        nats = model.nats(y[asked], targets)
        words = ~self.prosody.silent.to(targets.device)[targets]
        sums = {"words": float(words.sum()), "loss of words": float(nats.detach()[words].sum())}
        return Loss(nats.mean(), len(targets), sums=sums)

    def measures(self, sums: Sums) -> dict[str, float]:
        """Perplexity of all tokens, and of those that are neither marks nor line ends."""
        return {
            "perplexity": perplexity(sums["loss"] / sums["count"]),
            "perplexity_of_words": perplexity(sums["loss of words"] / max(1, sums["words"])),
        }

    def evaluate(self, data: list[str] | None = None, **how: Any) -> dict[str, Any]:
        """Perplexity, and what there is to say of poems that the model writes.

        Their tunes and forms are drawn as often as there are poems of them. They are written twice,
        without and with the mask that bars what breaks the form: without, it is kept by what the
        network makes of the conditions alone. Beside them stand as many "real" ones, of those that
        it is judged by. :func:`elman.tasks.lyrics.judging.judge` says what the figures are.
        """
        found = super().evaluate(data, **how)
        if self.settings.written:
            found["written"] = self._judged(
                self._others(data) if data else self.verses[self.judged_part()]
            )
        return found

    def _judged(self, real: list[Verse]) -> dict[str, dict[str, float]]:
        its, prosody = self.settings, self.prosody
        draw = random.Random(its.seed)
        every = list(prosody.forms.all())
        asked = draw.choices(every, [count for _, _, count in every], k=its.written)
        lots = {"real": draw.sample(real, min(its.written, len(real)))}
        for name, mask in (("without the mask", False), ("with the mask", True)):
            lots[name] = []
            for seed, (tune, form, _) in enumerate(asked):
                how = {"temperature": its.sample_temperature, "seed": seed}
                body = compose(self, tune, form, mask=mask, **how)
                lots[name].append(Verse(tune, np.array(body), form))
        known = [verse.body for verse in self.verses["train"]]
        return {name: judge(poems, prosody, known) for name, poems in lots.items()}

    def signature(self) -> Signature:
        """One token, with what is asked of the next, and states to logits and the new states."""
        numbers = (1 + len(self.prosody.sizes),) if self.settings.form else ()
        example = torch.zeros(1, *numbers, dtype=torch.long, device=self.model.device)
        return signature(self.model)._replace(inputs={"token": example})

    # -- telling ------------------------------------------------------------------------------

    def sample(self) -> str:
        """Poems in a few tunes."""
        its = self.settings
        made = self.do("generate", poems=3, seed=its.seed, temperature=its.sample_temperature)
        return "\n".join(poem["text"] for poem in made)

    def describe_model(self) -> str:
        """Cell, sizes, tokens and tunes, and the engine that runs it."""
        recurrent, prosody = self.model.recurrent, self.prosody
        return (
            f"{self.settings.cell} {[c.hidden_size for c in recurrent.cells]}, "
            f"{self.parameters():,} parameters, {len(prosody.vocabulary):,} "
            f"{prosody.vocabulary.kind} tokens, {len(prosody.forms.counts):,} tunes, "
            f"{recurrent.engine} engine"
        )
