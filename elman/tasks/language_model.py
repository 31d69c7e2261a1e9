"""Language modelling: a text, token by token; each is predicted from those before it."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from elman.data.sources import Source, read_sources, short_name
from elman.data.streams import Stream, TokenFile, Tokens, Window, blocks_of, fitting
from elman.data.text import STDIN, open_text, standard_input
from elman.data.vocabulary import Vocabulary
from elman.errors import ElmanError, InputError
from elman.lens import Activity
from elman.lens.activations import of_steps
from elman.lens.unrolled import unrolled
from elman.tasks.evaluation import negative_log_likelihood
from elman.tasks.generation import generate, prompt_ids
from elman.tasks.language_network import LanguageModel, LanguageModelSettings
from elman.training import storage
from elman.training.memory import if_it_fits
from elman.training.run import Run
from elman.training.settings import default_of
from elman.training.task import Task

# Where the settings are left at their defaults, an epoch has so many updates at least.
_WINDOWS = 8
# A share of unknown tokens from which on a perplexity says little.
_MANY_UNKNOWN = 0.1
_KEPT_INPUT = "stdin"  # in the run's folder

_logger = logging.getLogger("elman")


class LanguageModeling(Task):
    """Train a language model on one or more texts."""

    name = "language-model"
    Settings = LanguageModelSettings
    unit = "tokens"
    headline = "perplexity"
    model: LanguageModel

    def __init__(
        self,
        data: list[str],
        settings: LanguageModelSettings,
        vocabulary: Vocabulary | None,
        run: Run | None = None,
    ):
        self.data, self.settings, self._run = data, settings, run
        self.vocabulary = self._build_vocabulary() if vocabulary is None else vocabulary
        size = len(self.vocabulary)
        self.model = if_it_fits(lambda: LanguageModel(size, settings))
        self._texts: tuple[list[Source], list[Source]] | None = None
        self._stream: Stream | None = None

    @classmethod
    def prepare(cls, data: list[str], settings: Any) -> LanguageModeling:
        """Read the texts, collect their vocabulary, make the model.

        ``batch`` and ``steps``, where they are left at their defaults, are lowered for a short
        text, so that an epoch has some updates.

        Raises:
            ElmanError: a text is missing, empty, not UTF-8, or too short for one window.
        """
        if not data:
            raise InputError(
                "no text was given: name a file, a folder, - for standard input, or a corpus that "
                "`elman data` lists, such as time-machine."
            )
        share = default_of(next(f for f in fields(cls.Settings) if f.name == "validation"))
        if settings.validation_data and settings.validation not in (0, share):
            raise InputError(
                "`validation` is a share of the texts that are learned from, and `validation_data` "
                "is held out in its place: leave one of them out."
            )
        settings = replace(settings, validation_data=_absolute(settings.validation_data))
        torch.manual_seed(settings.seed)
        task = cls(_absolute(data), settings, None)
        # What is wrong with a text or a prompt is told before anything is written.
        task._fit()
        task.stream  # noqa: B018
        for prompt in settings.prompts:
            task.generate(prompt, 1)
        return task

    @classmethod
    def restore(cls, run: Run) -> LanguageModeling:
        """The job of an earlier run; its texts are read when they are needed."""
        path = run.path / "vocabulary.json"
        content = storage.read_json(path)
        try:
            vocabulary = Vocabulary.from_json(content)
        except ElmanError as why:
            raise ElmanError(f"{path} is damaged: {why}") from None
        with torch.random.fork_rng(devices=[]):  # the weights that it draws are not kept
            settings = cls.Settings.of(run.config["settings"])
            task = cls(run.config["data"], settings, vocabulary, run)
        task._checksums = run.config.get("checksums")
        return task

    def save(self, run: Run) -> None:
        """Keep the vocabulary, checksums of the texts, and standard input if one of them is."""
        storage.write_json(run.path / "vocabulary.json", self.vocabulary.to_json())
        if STDIN in (*self.data, *self.settings.validation_data):
            storage.copy_file(standard_input(), run.path / _KEPT_INPUT)
        learned, held_out = self._read()
        run.config["checksums"] = [source.checksum for source in (*learned, *held_out)]
        run.reconfigure(run.config["settings"])

    def describe_model(self) -> str:
        """See :meth:`Task.describe_model`."""
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

    # -- texts --------------------------------------------------------------------------------

    _checksums: list[int] | None = None

    @property
    def sources(self) -> list[Source]:
        """The texts that are learned from, read on first use.

        Raises:
            ElmanError: a text is no longer what the run was trained on.
        """
        return self._read()[0]

    @property
    def held_out(self) -> list[tuple[str, Tokens]]:
        """What the model is judged by, by name: texts of its own, or the ends of the sources."""
        learned, own = self._read()
        parts = [(s.name, s.train) for s in own] or [(s.name, s.held_out) for s in learned]
        return [(name, tokens) for name, tokens in parts if len(tokens) > 1]

    def _read(self) -> tuple[list[Source], list[Source]]:
        """The texts that are learned from, and those that are held out as a whole."""
        if self._texts is None:
            s, data = self.settings, [self._place(name) for name in self.data]
            own = [self._place(name) for name in s.validation_data]
            share = 0.0 if own else s.validation
            learned = read_sources(data, self.vocabulary, s.normalize, share, s.limit)
            texts = learned, read_sources(own, self.vocabulary, s.normalize)
            before = self._checksums or [t.checksum for t in (*texts[0], *texts[1])]
            now = zip_longest((*texts[0], *texts[1]), before)
            changed = [text.name for text, then in now if text and text.checksum != then]
            if changed:
                raise ElmanError(
                    f"{', '.join(changed)} is no longer the text that this run was trained on: "
                    "restore the text, or train anew."
                )
            for text in texts[1]:
                if len(text.train) < 2:
                    raise ElmanError(f"{text.name} is too short to judge a model by: give more.")
            self._texts = texts
        return self._texts

    def _place(self, name: str) -> str:
        """Where a text is now: what was standard input, a run has kept."""
        kept = name == STDIN and self._run is not None
        return str(self._run.path / _KEPT_INPUT) if kept and self._run else name

    def _fit(self) -> None:
        """Lower ``batch`` and ``steps`` for short texts, unless they were chosen."""
        s, length = self.settings, sum(len(source.train) for source in self.sources)
        usual = {f.name: default_of(f) for f in fields(s)}
        fixed = [name for name in ("batch", "steps") if getattr(s, name) != usual[name]]
        batch, steps = fitting(length, s.batch, s.steps, _WINDOWS, fixed)
        fits = batch * steps < length
        if (batch, steps) != (s.batch, s.steps) and fits:
            _logger.info(
                "%s tokens are few for `batch` %d and `steps` %d: %d and %d are taken, so that an "
                "epoch has more updates.", f"{length:,}", s.batch, s.steps, batch, steps,
            )  # fmt: skip
        if fits or not fixed:  # or else the stream says what was chosen, and what would do
            self.settings = replace(s, batch=batch, steps=steps)

    @property
    def stream(self) -> Stream:
        """What is learned from: the texts one after the other, in rows and windows."""
        if self._stream is None:
            parts = [source.train for source in self.sources]
            tokens = parts[0]
            if len(parts) > 1:
                tokens = TokenFile(blocks_of(*parts), len(self.vocabulary))
            held_out = sum(len(source.held_out) for source in self.sources)
            if len(tokens) < 2 and held_out:
                raise ElmanError(
                    f"of a text of length {held_out + len(tokens):,}, {held_out:,} held out leave "
                    "fewer than 2 tokens to learn from: give more text, or lower `validation`."
                )
            self._stream = Stream(tokens, self.settings.batch, self.settings.steps)
        return self._stream

    def _build_vocabulary(self) -> Vocabulary:
        s = self.settings
        blocks = (
            block for name in self.data for block in open_text(name).blocks(s.normalize, s.limit)
        )
        return Vocabulary.build(blocks, s.tokens, size=s.vocabulary_size, min_count=s.min_count)

    # -- learning -----------------------------------------------------------------------------

    def windows(self, epoch: int) -> int:
        """See :meth:`Task.windows`."""
        return self.stream.windows(self._offset(epoch))

    def read(self, epoch: int, start: int) -> Iterator[Window]:
        """See :meth:`Task.read`."""
        return self.stream.batches(self._offset(epoch), start)

    def _offset(self, epoch: int) -> int:
        """Every epoch cuts the text elsewhere, so that no token is always first in its window."""
        generator = torch.Generator().manual_seed((self.settings.seed * 1_000_003 + epoch) % 2**63)
        return int(torch.randint(self.stream.offsets, (), generator=generator))

    def loss(self, model: nn.Module, window: Window, state: Any) -> tuple[Tensor, Any]:
        """The mean of −log P of the window's targets, in nats."""
        device = self.model.output.weight.device
        logits, state = model(window.inputs.to(device), state)
        return cross_entropy(logits.flatten(0, 1), window.targets.to(device).flatten()), state

    def count(self, window: Window) -> int:
        """The tokens of a window."""
        return window.targets.numel()

    # -- measuring ----------------------------------------------------------------------------

    def describe(self, loss: float) -> dict[str, float]:
        """Perplexity, exp of the mean loss."""
        return {"perplexity": _perplexity(loss)}

    def validate(self) -> float | None:
        """The mean of −log P over what is held out."""
        parts = [self.negative_log_likelihood(tokens) for _, tokens in self.held_out]
        return sum(n for n, _ in parts) / sum(c for _, c in parts) if parts else None

    def rehearse_evaluation(self) -> None:
        """See :meth:`Task.rehearse_evaluation`."""
        for _, tokens in self.held_out[:1]:
            self.negative_log_likelihood(tokens, windows=1)

    def evaluate(self, data: list[str] | None = None) -> dict[str, Any]:
        """Perplexity, nats a token and bits a character, in all and for each source.

        ``unknown_share`` is the share of ``<unk>``, which stands for what the model never saw.

        Args:
            data: texts to judge the model on; without it, what was held out, or else what was
                trained on.
        """
        if data:
            given = read_sources(data, self.vocabulary, self.settings.normalize)
            texts = [(s.name, s.train) for s in given]
        else:
            texts = self.held_out or [(s.name, s.train) for s in self.sources]
        started = time.perf_counter()
        sums = [(name, tokens, *self.negative_log_likelihood(tokens)) for name, tokens in texts]
        seconds = time.perf_counter() - started
        nats, count = sum(s[2] for s in sums), sum(s[3] for s in sums)
        characters = [self._characters(tokens) for _, tokens in texts]
        unknown = [self._unknown(tokens) for _, tokens in texts]
        result = self._measures(nats, count, sum(characters), sum(unknown))
        result["tokens_per_second"] = round(count / max(seconds, 1e-9))
        result["part"] = "given" if data else "held out" if self.held_out else "trained on"
        result["sources"] = {
            name: self._measures(n, c, k, u)
            for (name, _, n, c), k, u in zip(sums, characters, unknown, strict=True)
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

    def negative_log_likelihood(
        self, tokens: Tokens, windows: int | None = None
    ) -> tuple[float, int]:
        """See :func:`elman.tasks.evaluation.negative_log_likelihood`."""
        self.model.eval()
        at_a_time = self.settings.batch * self.settings.steps
        return negative_log_likelihood(self.model, tokens, at_a_time, windows)

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

    @staticmethod
    def _measures(nats: float, tokens: int, characters: int, unknown: int) -> dict[str, Any]:
        mean = nats / max(1, tokens)
        return {
            "perplexity": _perplexity(mean),
            "nats_per_token": mean,
            "bits_per_character": nats / math.log(2) / max(1, characters),
            "tokens": tokens,
            "unknown_share": unknown / max(1, tokens),
        }

    # -- writing ------------------------------------------------------------------------------

    def generate(self, prompt: str, length: int, **how: Any) -> Iterator[str]:
        """Continue a prompt; see :func:`elman.tasks.generation.generate`."""
        self.model.eval()
        return generate(
            self.model, self.vocabulary, prompt, length, normalize=self.settings.normalize, **how
        )

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
        tokens = torch.tensor(ids, device=self.model.output.weight.device).unsqueeze(1)
        with unrolled(self.model.recurrent) as run:
            self.model(tokens)
        return [decoder.push(id) for id in ids], [of_steps(steps) for steps in run.cells]

    def sample(self) -> str:
        """What the model writes after each of the prompts, or after the text's first words."""
        s = self.settings
        known = [i for i in self.sources[0].train[:12] if i != self.vocabulary.unknown_id]
        prompts = s.prompts or [self.vocabulary.decode(known)]
        written = []
        for prompt in prompts:
            more = self.generate(
                prompt, s.sample_length, temperature=s.sample_temperature, seed=s.seed
            )
            written.append(prompt + "".join(more))
        return "\n\n".join(written)


def _perplexity(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf  # beyond, no float64 holds it


def _absolute(names: list[str]) -> list[str]:
    """The texts by names that hold from any folder."""
    return [
        os.path.abspath(name) if name != STDIN and os.path.exists(name) else name for name in names
    ]
