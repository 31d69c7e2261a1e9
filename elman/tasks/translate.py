"""Translation: from a sentence in one language to the same in another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from elman.data.kinds import PAIRS
from elman.tasks.pairs.alignment import Drawing, drawn
from elman.tasks.pairs.sequence_to_sequence import (
    BeamSettings,
    SequenceToSequence,
    SequenceToSequenceSettings,
)
from elman.training.settings import option
from elman.training.task import Measure, Sums, Verb


@dataclass
class TranslatorSettings(SequenceToSequenceSettings):
    """What a translator can be told."""

    language: str | None = option(
        None, "Whose words BLEU counts: zh cuts Chinese into characters.",
        choices=("zh", "other"), unset="told by the targets' script",
    )  # fmt: skip


@dataclass
class TranslatingSettings(Drawing, BeamSettings):
    """How a sentence is translated."""

    n_best: int = option(1, "How many translations of each, at most the beam's width.", least=1)


def _translate(
    task: Translator, inputs: Iterable[str], settings: TranslatingSettings
) -> Iterator[dict[str, Any]]:
    its = settings
    inputs = drawn(task, inputs, its.plot, its.beam, length_penalty=its.length_penalty)
    how = {"length_penalty": its.length_penalty, "n_best": its.n_best}
    for found in task.best(inputs, its.beam, **how):
        yield {"translation": found[0]} if its.n_best == 1 else {"translations": found}


class Translator(SequenceToSequence):
    """Learn to translate from pairs of sentences."""

    name = "translate"
    example = "multi30k-de-en --cell gru --hidden 256 --epochs 12"
    headline = Measure("bleu", higher=True)
    Settings = TranslatorSettings
    settings: TranslatorSettings
    kind = PAIRS
    verbs = (
        Verb(
            "translate", "Translate sentences.", "RUN 'ein hund rennt'", _translate, "Sentences",
            each=True, together=True, Settings=TranslatingSettings,
        ),
    )  # fmt: skip

    def collect(self) -> None:
        """Collect vocabularies; where no ``language`` is named, the targets' script tells it."""
        super().collect()
        if self.settings.language is None:
            text = "".join(pair.target for pair in self.pairs(self.records("train")))
            chinese = 2 * sum("\u4e00" <= character <= "\u9fff" for character in text) > len(text)
            self.settings = replace(self.settings, language="zh" if chinese else "other")

    @cached_property
    def bleu(self) -> Any:
        """What scores, as sacrebleu has it."""
        from sacrebleu.metrics import BLEU

        zh = self.settings.language == "zh"
        return BLEU(lowercase=self.settings.lowercase, tokenize="zh" if zh else "13a")

    def judge(self, written: list[str], references: list[str]) -> Sums:
        """The counts that BLEU is made of, which add up over batches and processes."""
        score = self.bleu.corpus_score(written, [references])
        sums = {"written words": score.sys_len, "reference words": score.ref_len}
        for n, (count, total) in enumerate(zip(score.counts, score.totals, strict=True), 1):
            sums |= {f"right {n}-grams": count, f"{n}-grams": total}
        return super().judge(written, references) | sums

    def measures(self, sums: Sums) -> dict[str, float]:
        """BLEU from 0 to 100 (Papineni et al., 2002; Post, 2018), and perplexity."""
        found = super().measures(sums)
        if not found:
            return {}
        orders = range(1, self.bleu.max_ngram_order + 1)
        score = self.bleu.compute_bleu(
            [int(sums[f"right {n}-grams"]) for n in orders],
            [int(sums[f"{n}-grams"]) for n in orders],
            int(sums["written words"]),
            int(sums["reference words"]),
            smooth_method=self.bleu.smooth_method,
        )
        return {"bleu": score.score, "perplexity": found["perplexity"]}

    def evaluate(self, data: list[str] | None = None, **how: Any) -> dict[str, Any]:
        """BLEU and perplexity of what a beam writes, and sacrebleu's signature of the score."""
        found = super().evaluate(data, **how)
        return {**found, "signature": str(self.bleu.get_signature())}
