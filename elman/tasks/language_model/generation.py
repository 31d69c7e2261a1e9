"""Writing: what a language model adds to a prompt, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from elman.data.normalization import normalized
from elman.data.vocabulary import Vocabulary
from elman.decoding import sample, until
from elman.errors import InputError
from elman.training.settings import Settings, option
from elman.training.task import Verb

if TYPE_CHECKING:
    from elman.tasks.language_model.network import LanguageModel
    from elman.tasks.language_model.task import LanguageModeling


@dataclass
class SamplingSettings(Settings):
    """How whatever writes draws its tokens."""

    temperature: float | None = option(
        None, "Above 1 bolder, below 1 safer, such as 0.7.", unset="1.0"
    )
    top_k: int | None = option(None, "Draw from the k likeliest only, such as 40.")
    top_p: float | None = option(None, "Draw from the likeliest that add up to p, such as 0.9.")
    greedy: bool = option(False, "Always take the likeliest.")
    seed: int | None = option(None, "Fixes the draws.", least=0, below=2**63, unset="drawn")

    def sampling(self) -> dict[str, Any]:
        """What :func:`elman.decoding.sample` is told.

        Raises:
            InputError: ``greedy`` stands beside what it would leave without effect.
        """
        contrary = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        useless = [f"`{name}`" for name, value in contrary.items() if value is not None]
        if self.greedy and useless:
            raise InputError(
                f"`greedy` takes the likeliest always, so that {' and '.join(useless)} would do "
                "nothing: leave out the one or the other."
            )
        temperature = 1.0 if self.temperature is None else self.temperature
        chosen = {"temperature": 0.0 if self.greedy else temperature}
        return contrary | chosen | {"seed": self.seed}


@dataclass
class WritingSettings(SamplingSettings):
    """What a language model that writes can be told."""

    prompt: str = option("", "What to begin with, such as 'time '.")
    length: int = option(400, "Tokens to write.")
    stop: str | None = option(None, "End before this text, such as $'\\n\\n'.")


def _write(
    task: LanguageModeling, inputs: Iterable[str], settings: WritingSettings
) -> Iterator[str]:
    """What follows the prompt, piece by piece."""
    its = settings
    return task.generate(its.prompt, its.length, stop=its.stop, **its.sampling())


WRITING = Verb(
    "generate",
    "Let a language model write; the text appears as it is written.",
    "RUN --prompt 'time traveller' --temperature 0.7\nRUN --greedy --length 200 --stop END --json",
    _write,
    Settings=WritingSettings,
)


def generate(
    model: LanguageModel,
    vocabulary: Vocabulary,
    prompt: str,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: str | None = None,
    normalize: str = "none",
) -> Iterator[str]:
    """What the model writes after ``prompt``, piece by piece as it is written.

    Args:
        model: the language model, in evaluation mode.
        vocabulary: its tokens.
        prompt: what it reads first; without any, a line's end, or else the commonest token.
        length: at most so many tokens.
        temperature, top_k, top_p, seed: as in :func:`elman.decoding.sample`.
        stop: end before this text.
        normalize: how the model's texts were normalised; the prompt is, too.

    Raises:
        InputError: a setting is out of bounds, or the prompt has characters (or words) that the
            model has never seen.
    """
    ids = prompt_ids(vocabulary, prompt, normalize)
    unknown = vocabulary.unknown_id
    written = sample(
        model, torch.tensor(ids, device=model.device), length,
        temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
        barred=() if unknown is None else (unknown,),
    )  # fmt: skip
    decoder = vocabulary.decoder()
    for id in ids:
        decoder.push(id)
    pieces = map(decoder.push, written)
    return pieces if stop is None else until(pieces, stop)


def prompt_ids(
    vocabulary: Vocabulary, given: str, normalize: str, what: str = "prompt"
) -> list[int]:
    """The tokens that are read first, one at least.

    Raises:
        InputError: some of them the model has never seen; ``what`` says whose they are.
    """
    prompt = "".join(normalized([given], normalize))
    unseen = vocabulary.unseen(prompt)
    if unseen:
        listed = ", ".join(repr(u) for u in unseen[:20]) + (" …" if len(unseen) > 20 else "")
        kind = "characters" if vocabulary.kind == "character" else "words"
        raise InputError(
            f"the {what} has {kind} that the model has never seen: {listed}; "
            "leave them out, or train on a text that has them."
        )
    ids = [int(i) for i in vocabulary.encode_text(prompt)]
    if given and not ids:
        raise InputError(
            f"nothing is left of the {what} {given!r} once it is normalised as the model's texts "
            f"were ({normalize}): begin with some letters."
        )
    if not ids and not vocabulary.unseen("\n"):
        ids = [int(i) for i in vocabulary.encode_text("\n")]
    return ids or [0 if vocabulary.unknown_id is None else vocabulary.unknown_id + 1]
