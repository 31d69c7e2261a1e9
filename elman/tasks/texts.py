"""The texts of a language model: what it learns from, and what it is judged by."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from elman.data.sources import Source, read_sources
from elman.data.streams import Stream, Tokens, fitting, joined
from elman.data.text import STDIN, open_text, standard_input
from elman.data.vocabulary import Vocabulary
from elman.errors import ElmanError, InputError
from elman.training.settings import default_of

# Where the settings are left at their defaults, an epoch has so many updates at least.
_WINDOWS = 8

_logger = logging.getLogger("elman")


class Texts:
    """The texts of a model, read on first use.

    Args:
        data: as :func:`elman.data.text.open_text` takes them.
        settings: of the model: those of data, and ``normalize``, ``limit`` and of the vocabulary.
        vocabulary: what encodes them.
        kept: the file that a run has kept of standard input, where that is one of them.
    """

    def __init__(
        self,
        data: list[str],
        settings: Any,
        vocabulary: Vocabulary,
        kept: Path | None = None,
    ):
        self.data, self.settings, self.vocabulary, self.kept = data, settings, vocabulary, kept
        self._read: dict[str, list[Source]] | None = None
        self._streams: dict[int, Stream] = {}

    def parts(self, name: str) -> list[tuple[str, Tokens]]:
        """The texts of a part of the data, by name: "train", "validation" or "test"."""
        read = self._sources()
        if name == "validation" and not self.settings.validation_data:
            found = [(source.name, source.held_out) for source in read["train"]]
        else:
            found = [(source.name, source.train) for source in read[name]]
        return [(name, tokens) for name, tokens in found if len(tokens) > 1]

    @property
    def sources(self) -> list[Source]:
        """The texts that are learned from."""
        return self._sources()["train"]

    def fingerprints(self) -> dict[str, int]:
        """The checksums of all texts, by what they are for and called."""
        return {
            source.name if part == "train" else f"{source.name} ({part})": source.checksum
            for part, sources in self._sources().items()
            for source in sources
        }

    def standard_input(self) -> dict[str, Path]:
        """The file that has standard input, by its name, if that is one of the texts."""
        its = self.settings
        read = STDIN in (*self.data, *its.validation_data, *its.test_data)
        return {STDIN: standard_input()} if read else {}

    def stream(self, processes: int = 1) -> Stream:
        """What is learned from: the texts one after the other, in rows and windows.

        Args:
            processes: that read it together, ``batch`` rows each.

        Raises:
            ElmanError: it is shorter than one window.
        """
        if processes not in self._streams:
            tokens = joined([source.train for source in self.sources], len(self.vocabulary))
            held_out = sum(len(source.held_out) for source in self.sources)
            if len(tokens) < 2 and held_out:
                raise ElmanError(
                    f"of a text of length {held_out + len(tokens):,}, {held_out:,} held out leave "
                    "fewer than 2 tokens to learn from: give more text, or lower `validation`."
                )
            its = self.settings
            self._streams[processes] = Stream(tokens, its.batch * processes, its.steps)
        return self._streams[processes]

    def fit(self) -> Any:
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
        return self.settings

    def _sources(self) -> dict[str, list[Source]]:
        if not self.data:
            raise ElmanError(
                "the run names no text that it was trained on: restore its config.json, or train "
                "anew."
            )
        if self._read is None:
            s, vocabulary = self.settings, self.vocabulary
            share = 0.0 if s.validation_data else s.validation
            read = {
                "train": read_sources(
                    self.data, vocabulary, s.normalize, share, s.limit, self.kept
                ),
                "validation": read_sources(
                    s.validation_data, vocabulary, s.normalize, kept=self.kept
                ),
                "test": read_sources(s.test_data, vocabulary, s.normalize, kept=self.kept),
            }
            for source in (*read["validation"], *read["test"]):
                if len(source.train) < 2:
                    raise ElmanError(f"{source.name} is too short to judge a model by: give more.")
            self._read = read
        return self._read


def prepared(data: list[str], settings: Any) -> tuple[list[str], Any]:
    """The texts of a model and its settings, by names of files that hold from any folder.

    Raises:
        InputError: no text was given, or two ways to hold out some of it.
    """
    if not data:
        raise InputError(
            "no text was given: name a file, a folder, - for standard input, or a corpus that "
            "`elman data` lists, such as time-machine."
        )
    share = default_of(next(f for f in fields(settings) if f.name == "validation"))
    if settings.validation_data and settings.validation not in (0, share):
        raise InputError(
            "`validation` is a share of the texts that are learned from, and `validation_data` "
            "is held out in its place: leave one of them out."
        )
    held_out, test = absolute(settings.validation_data), absolute(settings.test_data)
    return absolute(data), replace(settings, validation_data=held_out, test_data=test)


def build_vocabulary(data: Sequence[str], settings: Any) -> Vocabulary:
    """The vocabulary of texts."""
    s = settings
    blocks = (block for name in data for block in open_text(name).blocks(s.normalize, s.limit))
    return Vocabulary.build(blocks, s.tokens, size=s.vocabulary_size, min_count=s.min_count)


def absolute(names: Sequence[str]) -> list[str]:
    """The texts by names that hold from any folder."""
    return [
        os.path.abspath(name) if name != STDIN and os.path.exists(name) else name for name in names
    ]
