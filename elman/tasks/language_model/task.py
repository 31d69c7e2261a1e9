"""Language modelling: a text, token by token; each is predicted from those before it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor

from elman.data.batches import Batches
from elman.data.shards import Shard
from elman.data.sources import read_sources, short_name
from elman.data.streams import Tokens, Window, blocks_of
from elman.data.text import STDIN
from elman.data.vocabulary import Vocabulary
from elman.errors import InputError
from elman.lens import Activity
from elman.lens.activations import of_steps
from elman.lens.unrolled import unrolled
from elman.tasks.language_model.dynamic_evaluation import EvaluationSettings, evaluate_dynamically
from elman.tasks.language_model.evaluation import nats_of, passages
from elman.tasks.language_model.generation import WRITING, generate, prompt_ids
from elman.tasks.language_model.network import LanguageModel, LanguageModelSettings, signature
from elman.tasks.texts import Texts, build_vocabulary, prepared
from elman.training.measures import perplexity
from elman.training.task import PARTS, Loss, Measure, Recurrence, Signature, Sums, Task

# A share of unknown tokens from which on a perplexity says little.
_MANY_UNKNOWN = 0.1


class LanguageModeling(Task):
    """Train a language model on one or more texts."""

    name = "language-model"
    unit = "tokens"
    example = "time-machine --hidden 256 --layers 2 --epochs 20"
    headline = Measure("perplexity")
    Settings = LanguageModelSettings
    Evaluation = EvaluationSettings
    verbs = (WRITING,)
    by_shape = True
    model: LanguageModel

    def __init__(
        self,
        settings: LanguageModelSettings,
        vocabulary: Vocabulary,
        data: list[str],
        kept: Any = None,
    ):
        self.settings, self.vocabulary, self.data, self._kept = settings, vocabulary, data, kept
        self._texts: Texts | None = None

    @property
    def texts(self) -> Texts:
        """What is learned from and judged by."""
        if self._texts is None:
            self._texts = Texts(self.data, self.settings, self.vocabulary, self._kept)
        return self._texts

    @classmethod
    def prepare(cls, data: list[str], settings: Any) -> Self:
        """Read the texts and collect their vocabulary.

        ``batch`` and ``steps``, where they are left at their defaults, are lowered for a short
        text, so that an epoch has some updates.

        Raises:
            ElmanError: a text is missing, empty, not UTF-8, or too short for one window.
        """
        data, settings = prepared(data, settings)
        task = cls(settings, build_vocabulary(data, settings), data)
        task.settings = task.texts.fit()
        # What is wrong with a text or a prompt is told before anything is written.
        task.texts.stream()
        for prompt in settings.prompts:
            prompt_ids(task.vocabulary, prompt, settings.normalize)
        return task

    @classmethod
    def restore(cls, settings: Any, assets: dict[str, Any]) -> Self:
        """The job of an earlier run; its texts are read when they are needed."""
        return cls(settings, Vocabulary.from_json(assets["vocabulary"]), [], assets.get(STDIN))

    def assets(self) -> dict[str, Any]:
        """The vocabulary, and standard input if it is one of the texts."""
        kept = self.texts.standard_input()
        return {"vocabulary": self.vocabulary.to_json(), **kept}

    def fingerprints(self) -> dict[str, int]:
        """A checksum of every text."""
        return self.texts.fingerprints()

    def build(self) -> LanguageModel:
        """A model of the settings' cell and sizes."""
        return LanguageModel(len(self.vocabulary), self.settings)

    # -- learning and measuring ---------------------------------------------------------------

    def batches(
        self,
        part: str,
        epoch: int | None = None,
        shard: Shard = Shard(),  # noqa: B008
    ) -> Batches:
        """Windows of the texts that go on from each other, or passages to measure on."""
        if epoch is None:
            return self._passages(self.texts.parts(part), shard)
        stream = self.texts.stream(shard.world)
        # Every epoch cuts the text elsewhere, so that no token is always first in its window.
        draw = torch.Generator().manual_seed((self.settings.seed * 1_000_003 + epoch) % 2**63)
        offset = int(torch.randint(stream.offsets, (), generator=draw))
        return Batches(
            stream.windows(offset), lambda done: stream.batches(offset, done, shard=shard)
        )

    def batches_of(self, data: list[str], shard: Shard = Shard()) -> Batches:  # noqa: B008
        """Passages of other texts."""
        return self._passages(self._others(data), shard)

    def _others(self, data: list[str]) -> list[tuple[str, Tokens]]:
        given = read_sources(data, self.vocabulary, self.settings.normalize)
        return [(source.name, source.train) for source in given]

    def _passages(self, texts: list[tuple[str, Tokens]], shard: Shard) -> Batches:
        return passages(texts, self.settings.batch * self.settings.steps, shard)

    def loss(self, model: Any, batch: Window, carry: Any) -> Loss:
        """The mean of −log P of the window's targets, in nats."""
        y, state = model.read(batch.inputs.to(model.device), carry)
        return self._loss(model, y, batch, state)

    def recurrence(self) -> Recurrence:
        """The recurrent network, between the tokens and −log P."""
        model = self.model
        return Recurrence(
            model.recurrent,
            lambda batch: model.embed(batch.inputs.to(model.device)),
            lambda y, batch: self._loss(model, y, batch),
        )

    def _loss(self, model: LanguageModel, y: Tensor, batch: Window, state: Any = None) -> Loss:
        its = self.settings
        targets = batch.targets.to(model.device)
        nats, penalty = model.loss(y, targets, its.activation_decay, its.slowness)
        return Loss(nats, batch.targets.numel(), state, penalty=penalty)

    def tally(self, model: Any, batch: Any, carry: Any) -> tuple[Sums, Any]:
        """−log P of a passage's targets; half as many as an update has become logits together.

        Because what the allocator keeps between two batches counts, too.
        """
        some = max(1, self.settings.batch * self.settings.steps // 2)
        nats, count, state = nats_of(model, batch, carry, some)
        sums = {"loss": nats, "count": count}
        return sums | {f"{name} of {batch.text}": n for name, n in sums.items()}, state

    def measures(self, sums: Sums) -> dict[str, float]:
        """Perplexity, exp of the mean loss."""
        return {"perplexity": perplexity(sums["loss"] / max(1, sums["count"]))}

    def evaluate(self, data: list[str] | None = None, **how: Any) -> dict[str, Any]:
        """Perplexity, nats a token and bits a character, in all and for each text.

        ``unknown_share`` is the share of ``<unk>``, which stands for what the model never saw.

        Args:
            data: texts to judge the model on; without it, the test part, what was held out, or
                else what was trained on.
            how: :class:`elman.tasks.language_model.dynamic_evaluation.EvaluationSettings`.
        """
        settings = self.Evaluation.of(how)
        part = "given" if data else self.judged_part()
        texts = self._others(data) if data else self.texts.parts(part)
        found: Sums = {}

        def keep(sums: Sums) -> Sums:
            found.update(sums)
            return sums

        started = time.perf_counter()
        if settings.dynamic:
            found = evaluate_dynamically(self, texts, settings)
        else:
            self.measure(self.model, self._passages(texts, Shard()), keep)
        seconds = time.perf_counter() - started
        counts = {name: (self._characters(tokens), self._unknown(tokens)) for name, tokens in texts}
        whole = [sum(each) for each in zip(*counts.values(), strict=True)]
        result = _figures(found["loss"], int(found["count"]), *whole)
        result["tokens_per_second"] = round(found["count"] / max(seconds, 1e-9))
        result["part"] = PARTS[part]
        result["sources"] = {
            name: _figures(found[f"loss of {name}"], int(found[f"count of {name}"]), *count)
            for name, count in counts.items()
        }
        return result

    def doubts(self, measures: dict[str, Any]) -> list[str]:
        """Say so where the text is mostly unknown, or the model no better than chance."""
        found = []
        share, size = measures["unknown_share"], len(self.vocabulary)
        if share >= _MANY_UNKNOWN:
            found.append(
                f"{share:.0%} of the tokens are <unk>, not in the model's vocabulary: "
                "the perplexity says little of such a text."
            )
        if measures["perplexity"] > size:
            found.append(
                f"a perplexity of {measures['perplexity']:.4g} is above that of chance, {size:,} "
                f"for {size:,} equally likely tokens: "
                + (
                    "this text is another than those that the model has learned."
                    if measures["part"] == "given"
                    else "the model has learned nothing that holds here; lower `learning_rate`, "
                    "train for more `epochs`, or on more text."
                )
            )
        return found

    def _characters(self, tokens: Tokens) -> int:
        if self.vocabulary.kind == "character":
            return len(tokens) - 1
        decoder = self.vocabulary.decoder()
        return sum(len(decoder.push(int(i))) for i in tokens[1:])

    def _unknown(self, tokens: Tokens) -> int:
        """How many tokens but the first are unknown."""
        id = self.vocabulary.unknown_id
        if id is None:
            return 0
        return sum(int((ids == id).sum()) for ids in blocks_of(tokens[1:]))

    # -- writing ------------------------------------------------------------------------------

    def generate(self, prompt: str, length: int, **how: Any) -> Iterator[str]:
        """Continue a prompt; see :func:`elman.tasks.language_model.generation.generate`."""
        self.model.eval()
        return generate(
            self.model, self.vocabulary, prompt, length, normalize=self.settings.normalize, **how
        )

    def signature(self) -> Signature:
        """One token and the network's states to the next token's logits and the new states."""
        return signature(self.model)

    # -- telling ------------------------------------------------------------------------------

    def describe_model(self) -> str:
        """Cell, sizes, tokens, and the engine that runs it."""
        recurrent = self.model.recurrent
        return (
            f"{self.settings.cell} {[c.hidden_size for c in recurrent.cells]}, "
            f"{self.parameters():,} parameters, {len(self.vocabulary):,} "
            f"{self.vocabulary.kind} tokens, {recurrent.engine} engine"
        )

    def title(self) -> str:
        """Cell, sizes and texts."""
        cell, sizes = self.settings.cell, [c.hidden_size for c in self.model.recurrent.cells]
        units = ", ".join(map(str, sizes))
        if len(sizes) > 1 and len(set(sizes)) == 1:
            units = f"{len(sizes)} × {sizes[0]}"
        named = os.path.basename(cell)  # of a user's own, the file and not its folder
        return f"{named}, {units} units, on {short_name(self.data)}"

    # -- looking ------------------------------------------------------------------------------

    def activity(self, text: str) -> tuple[list[str], list[Activity]]:
        """The tokens of a text, and the gates and states of every layer while they are read.

        Raises:
            InputError: the text is empty, or has tokens that the model has never seen.
        """
        if not text:
            raise InputError("the text is empty: expected some characters to read.")
        ids = prompt_ids(self.vocabulary, text, self.settings.normalize, "text")
        decoder = self.vocabulary.decoder()
        tokens = torch.tensor(ids, device=self.model.device).unsqueeze(1)
        with unrolled(self.model.recurrent) as run:
            self.model(tokens)
        return [decoder.push(id) for id in ids], [of_steps(steps) for steps in run.cells]

    def sample(self) -> str:
        """What the model writes after each of the prompts, or after the text's first words."""
        s = self.settings
        known = [i for i in self.texts.sources[0].train[:12] if i != self.vocabulary.unknown_id]
        prompts = s.prompts or [self.vocabulary.decode(known)]
        written = []
        for prompt in prompts:
            more = self.generate(
                prompt, s.sample_length, temperature=s.sample_temperature, seed=s.seed
            )
            written.append(prompt + "".join(more))
        return "\n\n".join(written)


def _figures(nats: float, tokens: int, characters: int, unknown: int) -> dict[str, Any]:
    mean = nats / max(1, tokens)
    return {
        "perplexity": perplexity(mean),
        "nats_per_token": mean,
        "bits_per_character": nats / math.log(2) / max(1, characters),
        "tokens": tokens,
        "unknown_share": unknown / max(1, tokens),
    }
