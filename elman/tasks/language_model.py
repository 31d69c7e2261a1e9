"""Language modelling: a text, token by token; each is predicted from those before it."""

from __future__ import annotations

import math
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from elman.data.streams import Stream, TokenFile, Tokens, Window, blocks_of, split
from elman.data.text import open_text
from elman.data.vocabulary import KINDS, Vocabulary
from elman.errors import ElmanError, InputError
from elman.layers.dropout import between_layers
from elman.lens import Activity
from elman.lens.activations import of_steps
from elman.lens.unrolled import unrolled
from elman.tasks.evaluation import negative_log_likelihood
from elman.tasks.generation import generate, prompt_ids
from elman.tasks.network import NetworkSettings, make_recurrent
from elman.training import storage
from elman.training.memory import if_it_fits
from elman.training.run import Run
from elman.training.settings import TrainingSettings, option
from elman.training.task import Task

_ONE_HOT_UP_TO = 256


@dataclass
class LanguageModelSettings(TrainingSettings, NetworkSettings):
    """The settings of a language model."""

    tokens: str = option("character", "What the text is cut into.", choices=KINDS)
    vocabulary_size: int | None = option(
        None, "At most so many tokens, the most frequent.", least=2
    )
    min_count: int = option(1, "Tokens that are rarer become <unk>.", least=1)
    normalize: str = option(
        "none", "letters: lower-cased letters and space.", choices=("none", "lower", "letters")
    )
    limit: int | None = option(None, "Only so many characters of each source.", least=1)
    validation: float = option(
        0.1, "Share at the end of each source to hold out.", least=0, below=1
    )
    embedding: int | None = option(
        None, "Width of the embedding; 0 is one-hot, the default for small vocabularies.",
        least=0, below=2**31,
    )  # fmt: skip
    tied: bool = option(False, "Share the embedding's weights with the output's.")
    batch: int = option(32, "Rows of text read side by side.", least=1, below=2**31)
    steps: int = option(
        35, "Steps of a window, which the gradient reaches back.", least=1, below=2**31
    )
    prompts: list[str] = option([], "What the samples begin with.")
    sample_length: int = option(200, "Tokens of a sample.", least=1, below=10**7)
    sample_temperature: float = option(
        0.8, "Temperature of the samples; 0 is greedy.", least=0, below=100
    )


class LanguageModel(nn.Module):
    """P(w_{t+1} | w_1 … w_t) = softmax(V h_t + b), h the output of a recurrent network.

    The input is one-hot or embedded. With ``tied`` weights, V is the embedding (Press & Wolf,
    2017); a linear map stands between where the widths differ.

    Args:
        vocabulary_size: how many tokens there are.
        settings: cell, sizes, dropout, embedding.
    """

    def __init__(self, vocabulary_size: int, settings: LanguageModelSettings):
        super().__init__()
        width = settings.embedding
        if width is None:
            small = vocabulary_size <= _ONE_HOT_UP_TO and not settings.tied
            width = 0 if small else (settings.hidden_sizes or [settings.hidden])[0]
        if settings.tied and not width:
            raise InputError("tied weights need an embedding: set embedding above 0.")
        self.vocabulary_size, self.dropout = vocabulary_size, settings.dropout
        self.variational = settings.variational
        self.embedding = nn.Embedding(vocabulary_size, width) if width else None
        self.recurrent = make_recurrent(settings, width or vocabulary_size)
        size = self.recurrent.output_size
        self.to_embedding = nn.Linear(size, width) if settings.tied and size != width else None
        self.output = nn.Linear(width if settings.tied else size, vocabulary_size)
        if self.embedding is not None:
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
            if settings.tied:
                self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (T, B) and a state to logits (T, B, V) and the state after them."""
        y, state = self.read(tokens, state)
        return self.predict(y), state

    def read(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (T, B) and a state to the network's outputs (T, B, S) and the state after them."""
        return self.recurrent(self._input(tokens), state)

    def predict(self, y: Tensor) -> Tensor:
        """Outputs of the network (…, S) to logits (…, V)."""
        y = between_layers(y, self.dropout, self.variational, self.training)
        return self.output(y if self.to_embedding is None else self.to_embedding(y))

    def step(self, token: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One token (B), or a scalar, and a state to logits (B, V) or (V), and the new state."""
        y, state = self.recurrent.step(self._input(token), state)
        return self.predict(y), state

    def _input(self, tokens: Tensor) -> Tensor:
        if self.embedding is None:
            like = self.output.weight
            one_hot = like.new_zeros(*tokens.shape, self.vocabulary_size)
            return one_hot.scatter_(-1, tokens.unsqueeze(-1), 1.0)
        return between_layers(self.embedding(tokens), self.dropout, self.variational, self.training)


class Source(NamedTuple):
    """One text of a model's training: what it learns from, and what is held out."""

    name: str
    train: Tokens
    held_out: Tokens
    checksum: int


class LanguageModeling(Task):
    """Train a language model on one or more texts."""

    name = "language-model"
    Settings = LanguageModelSettings
    unit = "tokens"
    headline = "perplexity"
    model: LanguageModel

    def __init__(
        self, data: list[str], settings: LanguageModelSettings, vocabulary: Vocabulary | None
    ):
        self.data, self.settings = data, settings
        self.vocabulary = self._build_vocabulary() if vocabulary is None else vocabulary
        size = len(self.vocabulary)
        self.model = if_it_fits(lambda: LanguageModel(size, settings))
        self._sources: list[Source] | None = None
        self._stream: Stream | None = None

    @classmethod
    def prepare(cls, data: list[str], settings: Any) -> LanguageModeling:
        """Read the texts, collect their vocabulary, make the model.

        Raises:
            ElmanError: a text is missing, empty, not UTF-8, or too short for one window.
        """
        if not data:
            raise InputError("no text was given: name a file, or a corpus that elman data lists.")
        named = [os.path.abspath(name) if os.path.exists(name) else name for name in data]
        torch.manual_seed(settings.seed)
        task = cls(named, settings, None)
        # What is wrong with a text or a prompt is told before anything is written.
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
            task = cls(run.config["data"], cls.Settings.of(run.config["settings"]), vocabulary)
        task._checksums = run.config.get("checksums")
        return task

    def save(self, run: Run) -> None:
        """Keep the vocabulary, and checksums of the texts."""
        storage.write_json(run.path / "vocabulary.json", self.vocabulary.to_json())
        run.config["checksums"] = [source.checksum for source in self.sources]
        run.reconfigure(run.config["settings"])

    def describe_model(self) -> str:
        """See :meth:`Task.describe_model`."""
        recurrent = self.model.recurrent
        return (
            f"{self.settings.cell} {[c.hidden_size for c in recurrent.cells]}, "
            f"{self.parameters():,} parameters, {len(self.vocabulary):,} "
            f"{self.vocabulary.kind} tokens, {recurrent.engine} engine"
        )

    # -- texts --------------------------------------------------------------------------------

    _checksums: list[int] | None = None

    @property
    def sources(self) -> list[Source]:
        """The texts, read on first use.

        Raises:
            ElmanError: a text is no longer what the run was trained on.
        """
        if self._sources is None:
            share = self.settings.validation
            limit = self.settings.limit
            self._sources = self._read_all(self.data, share, limit)
            now = [source.checksum for source in self._sources]
            if self._checksums is not None and now != self._checksums:
                before = self._checksums
                changed = [s.name for s in self._sources if s.checksum not in before]
                raise ElmanError(
                    f"{', '.join(changed)} is no longer the text that this run was trained on: "
                    "restore the text, or train anew."
                )
        return self._sources

    @property
    def stream(self) -> Stream:
        """What is learned from: the texts one after the other, in rows and windows."""
        if self._stream is None:
            parts = [source.train for source in self.sources]
            tokens = parts[0]
            if len(parts) > 1:
                tokens = TokenFile(blocks_of(*parts), len(self.vocabulary))
            self._stream = Stream(tokens, self.settings.batch, self.settings.steps)
        return self._stream

    def _build_vocabulary(self) -> Vocabulary:
        s = self.settings
        blocks = (block for name in self.data for block in self._blocks(name, s.limit))
        return Vocabulary.build(blocks, s.tokens, size=s.vocabulary_size, min_count=s.min_count)

    def _blocks(self, name: str, limit: int | None) -> Iterator[str]:
        return open_text(name).blocks(self.settings.normalize, limit)

    def _read_all(self, names: list[str], held_out_share: float, limit: int | None) -> list[Source]:
        labels = _labels(names)
        return [
            self._read(name, label, held_out_share, limit)
            for name, label in zip(names, labels, strict=True)
        ]

    def _read(self, name: str, label: str, held_out_share: float, limit: int | None) -> Source:
        checksum = 0

        def counted() -> Iterator[np.ndarray]:
            nonlocal checksum
            for ids in self.vocabulary.encode(self._blocks(name, limit)):
                checksum = zlib.crc32(ids.tobytes(), checksum)
                yield ids

        tokens = TokenFile(counted(), len(self.vocabulary))
        train, held_out = split(tokens, held_out_share)
        return Source(label, train, held_out, checksum)

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
        """The mean of −log P over the held-out parts."""
        parts = [self.negative_log_likelihood(s.held_out) for s in self._held_out()]
        return sum(n for n, _ in parts) / sum(c for _, c in parts) if parts else None

    def rehearse_evaluation(self) -> None:
        """See :meth:`Task.rehearse_evaluation`."""
        for source in self._held_out()[:1]:
            self.negative_log_likelihood(source.held_out, windows=1)

    def evaluate(self, data: list[str] | None = None) -> dict[str, Any]:
        """Perplexity, nats a token and bits a character, in all and for each source.

        Args:
            data: texts to judge the model on; without it, what was held out, or else what was
                trained on.
        """
        if data:
            texts = [(s.name, s.train) for s in self._read_all(data, 0.0, limit=None)]
        elif held_out := self._held_out():
            texts = [(s.name, s.held_out) for s in held_out]
        else:
            texts = [(s.name, s.train) for s in self.sources]
        started = time.perf_counter()
        sums = [(name, tokens, *self.negative_log_likelihood(tokens)) for name, tokens in texts]
        seconds = time.perf_counter() - started
        nats, count = sum(s[2] for s in sums), sum(s[3] for s in sums)
        characters = [self._characters(tokens) for _, tokens, _, _ in sums]
        result = self._measures(nats, count, sum(characters))
        result["tokens_per_second"] = round(count / max(seconds, 1e-9))
        result["part"] = "given" if data else "held out" if held_out else "trained on"
        result["sources"] = {
            name: self._measures(n, c, k)
            for (name, _, n, c), k in zip(sums, characters, strict=True)
        }
        return result

    def negative_log_likelihood(
        self, tokens: Tokens, windows: int | None = None
    ) -> tuple[float, int]:
        """See :func:`elman.tasks.evaluation.negative_log_likelihood`."""
        self.model.eval()
        at_a_time = self.settings.batch * self.settings.steps
        return negative_log_likelihood(self.model, tokens, at_a_time, windows)

    def _held_out(self) -> list[Source]:
        return [source for source in self.sources if len(source.held_out) > 1]

    def _characters(self, tokens: Tokens) -> int:
        if self.vocabulary.kind == "character":
            return len(tokens) - 1
        decoder = self.vocabulary.decoder()
        return sum(len(decoder.push(int(i))) for i in tokens[1:])

    @staticmethod
    def _measures(nats: float, tokens: int, characters: int) -> dict[str, Any]:
        mean = nats / max(1, tokens)
        return {
            "perplexity": _perplexity(mean),
            "nats_per_token": mean,
            "bits_per_character": nats / math.log(2) / max(1, characters),
            "tokens": tokens,
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


def _labels(names: list[str]) -> list[str]:
    """What to call each source: a file by its stem, or by as much of its path as sets it apart."""
    parts = [Path(n).with_suffix("").parts if os.path.isfile(n) else (n,) for n in names]
    for size in range(1, max(map(len, parts), default=0) + 1):
        labels = [os.path.join(*p[-size:]) for p in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{label} ({k})" for k, label in enumerate(names, start=1)]
