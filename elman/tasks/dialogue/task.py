"""Dialogue: from the turns so far to the next one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch.nn.functional import cross_entropy

from elman.data.batches import NONE, Batches, batched
from elman.data.dialogues import Dialogue
from elman.data.kinds import DIALOGUES
from elman.data.shards import Shard
from elman.data.text import STDIN
from elman.data.vocabulary import KINDS, Vocabulary
from elman.data.words import split_words
from elman.errors import ElmanError
from elman.networks.conversation import ConversationNetwork, Dialogues, collate
from elman.networks.encoder_decoder import EncoderDecoderSettings
from elman.tasks.dialogue.chat import CHAT, REPLY, distinct
from elman.tasks.pairs.sequence_to_sequence import Side
from elman.tasks.records import RecordTask
from elman.training.measures import Loss, Measure, Sums, perplexity
from elman.training.network import NetworkSettings
from elman.training.settings import DataSettings, TrainingSettings, option

_logger = logging.getLogger("elman")

_JUDGED = 200
"""How many replies are written for what `evaluate` tells of them."""

_TOGETHER = 4096
"""How many tokens become logits together, where no gradient is wanted."""


@dataclass
class ConversationSettings(TrainingSettings, NetworkSettings, DataSettings):
    """What a model of dialogues can be told."""

    tokens: str = option(
        "word", "What turns are cut into; a Chinese character is a word.", choices=KINDS
    )
    vocabulary_size: int | None = option(
        None, "At most so many tokens, such as 8000.", least=2, unset="all; 4096 for bpe"
    )
    min_count: int = option(2, "Tokens that are rarer become <unk>.", least=1)
    lowercase: bool = option(False, "Read and write lower case.")
    attention: str = option(
        "none", "How replies look at all that was said before.", choices=("none", "general", "dot")
    )
    embedding: int | None = option(
        None, "Width of the embedding.", least=1, below=2**31, unset="as the first layer's"
    )
    tied: bool = option(True, "Share the embedding's weights with the output's.")
    longest: int = option(
        1000, "Dialogues with more tokens are not learned from.", least=2, below=10**6
    )


class Conversation(RecordTask):
    """Learn to answer, from dialogues: each turn from those before it."""

    name = "dialogue"
    unit = "tokens"
    example = "dailydialog-en --cell gru --hidden 256 --dropout 0.3 --epochs 8"
    headline = Measure("perplexity")
    Settings = ConversationSettings
    verbs = (CHAT, REPLY)
    kind = DIALOGUES
    settings: ConversationSettings
    side: Side
    model: ConversationNetwork

    def __init__(self, settings: Any, data: Iterable[str] = (), kept: Path | None = None):
        super().__init__(settings, data, kept)
        self._coded: dict[str, list[list[list[int]]]] = {}

    # -- data -----------------------------------------------------------------------------------

    def collect(self) -> None:
        """Collect the vocabulary of the dialogues that are learned from.

        Raises:
            ElmanError: the dialogues cannot be used.
        """
        its = self.settings
        turns = (turn for dialogue in self.parts["train"] for turn in dialogue.turns)
        vocabulary = Vocabulary.build(
            # A token never goes from one turn into the next.
            ((turn.lower() if its.lowercase else turn) + "\n" for turn in turns),
            its.tokens,
            size=its.vocabulary_size,
            min_count=its.min_count,
        )
        self.side = Side(vocabulary, its.lowercase)
        self.batches("train")  # what is wrong with the data is told before anything is written

    def assets(self) -> dict[str, Any]:
        """The vocabulary, and standard input if it is among the data."""
        return {**super().assets(), "vocabulary": self.side.vocabulary.to_json()}

    @classmethod
    def restore(cls, settings: Any, assets: dict[str, Any]) -> Self:
        """The job of an earlier run; its data is read when it is needed."""
        task = cls(settings, kept=assets.get(STDIN))
        task.side = Side(Vocabulary.from_json(assets["vocabulary"]), settings.lowercase)
        return task

    def coded(self, part: str) -> list[list[list[int]]]:
        """The dialogues of "train", "validation" or "test": the ids of each turn and its end."""
        if part not in self._coded:
            self._coded[part] = self._code(self.parts[part], learned=part == "train")
        return self._coded[part]

    def _code(self, dialogues: Sequence[Dialogue], learned: bool = False) -> list[list[list[int]]]:
        """Those that have a reply and, where they are learned from, are not too long."""
        most = self.settings.longest
        every = [
            [self.read(turn) for turn in dialogue.turns]
            for dialogue in dialogues
            if len(dialogue.turns) > 1
        ]
        kept = [turns for turns in every if not learned or sum(map(len, turns)) <= most]
        if dialogues and not kept:
            raise ElmanError(
                f"none of the {len(dialogues):,} dialogues has two turns and at most {most:,} "
                "tokens: give dialogues with replies, or raise `longest`."
            )
        for count, why in (
            (len(dialogues) - len(every), "of one turn, which nobody answers"),
            (len(every) - len(kept), f"with more than {most:,} tokens"),
        ):
            if count:
                _logger.info(
                    "dialogues left out, %s: %s of %s", why, f"{count:,}", f"{len(dialogues):,}"
                )
        return kept

    def read(self, turn: str) -> list[int]:
        """The ids of a turn, and its end."""
        return [*self.side.encode(turn), self.side.end]

    def batches(
        self,
        part: str,
        epoch: int | None = None,
        shard: Shard = Shard(),  # noqa: B008
    ) -> Batches:
        """Dialogues of similar length side by side."""
        return self._batched(self.coded(part), epoch, shard)

    def batches_of(self, data: list[str], shard: Shard = Shard()) -> Batches:  # noqa: B008
        """Other dialogues."""
        return self._batched(self._code(self.kind.read(data, "test")), None, shard)

    def _batched(self, coded: list[list[list[int]]], epoch: int | None, shard: Shard) -> Batches:
        if not coded:
            return NONE
        lengths = [sum(map(len, turns)) for turns in coded]
        beside = partial(collate, end=self.side.end)
        return batched(coded, self.settings.batch, beside, self.order(epoch), shard, lengths)

    # -- learning and measuring -------------------------------------------------------------------

    def build(self) -> ConversationNetwork:
        """An encoder and a decoder of the settings' cell and sizes."""
        names = [f.name for f in fields(EncoderDecoderSettings) if hasattr(self.settings, f.name)]
        its = {name: getattr(self.settings, name) for name in names}
        return ConversationNetwork(
            self.side.size, EncoderDecoderSettings(bidirectional=False, **its)
        )

    def loss(self, model: Any, batch: Dialogues, carry: Any) -> Loss:
        """The mean of −log P of the replies' tokens and ends, in nats."""
        target = torch.cat([group.target for group in batch.replies])
        return Loss(cross_entropy(model.output(model(batch)), target), len(target))

    def tally(self, model: Any, batch: Dialogues, carry: Any) -> tuple[Sums, Any]:
        """The same in sums, not all of whose logits are there at once."""
        target = torch.cat([group.target for group in batch.replies]).split(_TOGETHER)
        nats = sum(
            float(cross_entropy(model.output(readouts), some, reduction="sum"))
            for readouts, some in zip(model(batch).split(_TOGETHER), target, strict=True)
        )
        return {"loss": nats, "count": sum(map(len, target))}, None

    def measures(self, sums: Sums) -> dict[str, float]:
        """Perplexity of replies: exp of the mean loss of their tokens and ends."""
        return {"perplexity": perplexity(sums["loss"] / sums["count"])}

    def evaluate(self, data: list[str] | None = None, **how: Any) -> dict[str, Any]:
        """Perplexity, and what a sample of the model's own replies is like beside people's."""
        found = super().evaluate(data, **how)
        given = self.kind.read(data, "test") if data else self.parts[self.judged_part()]
        asked = [each for each in given if len(each.turns) > 1]
        asked = asked[:: max(1, len(asked) // _JUDGED)][:_JUDGED]
        written = self.do("reply", [each.turns[:-1] for each in asked], seed=0)
        return found | {
            "replies": {
                "written": _variety([each["reply"] for each in written]),
                "of people": _variety([each.turns[-1] for each in asked]),
            }
        }

    def doubts(self, measures: dict[str, Any]) -> list[str]:
        """Say what no figure here tells."""
        return [
            "the perplexity tells how well people's replies are expected, and says little of what "
            "the model's own are worth: read some, by `elman chat`."
        ]

    # -- replying ---------------------------------------------------------------------------------

    def sample(self) -> str:
        """A conversation: answers to what one speaker says in a dialogue that is held out."""
        turns = (self.parts["validation"] or self.parts["train"])[0].turns[::2]
        answers = self.do("chat", turns, seed=self.settings.seed)
        return "\n".join(
            f"> {turn}\n{answer['reply']}" for turn, answer in zip(turns, answers, strict=True)
        )

    def describe_model(self) -> str:
        """Cell, sizes, attention and vocabulary."""
        its, sizes = self.settings, [c.hidden_size for c in self.model.decoder.cells]
        return (
            f"{its.cell} {sizes}, attention {its.attention}, {self.parameters():,} parameters, "
            f"{self.side.size:,} {its.tokens} tokens, {self.model.decoder.engine} engine"
        )


def _variety(replies: list[str]) -> dict[str, float]:
    """How different the words of replies are, and how many a reply has."""
    texts = [split_words(reply) for reply in replies]
    words = sum(map(len, texts)) / max(1, len(texts))
    return {"distinct-1": distinct(texts, 1), "distinct-2": distinct(texts, 2), "words": words}
