"""Writing: one token after the other, each drawn from what the model expects next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from elman.data.normalization import normalized
from elman.data.vocabulary import Vocabulary
from elman.errors import ElmanError, InputError
from elman.seeds import generator


class Predictor(Protocol):
    """What writing needs of a model: logits of the next token, over a prompt and step by step."""

    def __call__(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (T) and a state to logits (T, V) and the state after them."""

    def step(self, token: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One token () and a state to logits (V) and the state after it."""

    def parameters(self) -> Iterator[Tensor]:
        """The weights, which tell where to compute."""


def generate(
    model: Predictor,
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
        temperature: what the logits are divided by; 0 takes the most likely token always.
        top_k: draw from the k most likely tokens only.
        top_p: draw from the fewest tokens whose probabilities add up to p (Holtzman et al., 2020).
        seed: makes the draws the same each time.
        stop: end before this text.
        normalize: how the model's texts were normalised; the prompt is, too.

    Raises:
        InputError: a setting is out of bounds, or the prompt has characters (or words) that the
            model has never seen.
    """
    _check(length, temperature, top_k, top_p, stop)
    ids = prompt_ids(vocabulary, prompt, normalize)
    draw = torch.Generator() if seed is None else generator(seed)
    if seed is None:
        draw.seed()
    pieces = _pieces(model, vocabulary, ids, length, temperature, top_k, top_p, draw)
    return pieces if stop is None else _until(pieces, stop)


def _pieces(
    model: Predictor,
    vocabulary: Vocabulary,
    ids: list[int],
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    draw: torch.Generator,
) -> Iterator[str]:
    device = next(model.parameters()).device
    token = torch.empty((), dtype=torch.long, device=device)
    allowed = torch.zeros(len(vocabulary), dtype=torch.float64)
    if vocabulary.unknown_id is not None:
        allowed[vocabulary.unknown_id] = -torch.inf
    decoder = vocabulary.decoder()
    for id in ids:
        decoder.push(id)
    noise, state = _noise(len(vocabulary), draw), None
    for k in range(length):
        with torch.inference_mode():
            if k == 0:
                whole, state = model(torch.tensor(ids, device=device))
                logits = whole[-1]
                if logits.isnan().any():
                    raise ElmanError(
                        "the model expects NaN of every token: its training diverged; train anew, "
                        "with a smaller learning rate."
                    )
            else:
                logits, state = model.step(token.fill_(id), state)
            id = choose(allowed + logits.cpu(), temperature, top_k, top_p, next(noise))
        yield decoder.push(id)


def choose(
    scores: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    noise: Tensor,
) -> int:
    """Draw a token from its logits (V) at a temperature, among the top k and the top p.

    The token is argmax_v (s_v + T g_v) with ``noise`` g_v ~ Gumbel(0, 1), which has the
    probability softmax(s / T)_v (Gumbel, 1954); with T = 0 it is the likeliest.
    """
    if top_k is not None and top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(top_k).values[-1], -torch.inf)
    if top_p is not None:
        ordered, order = scores.sort(descending=True)
        shares = ((ordered - ordered[0]) / temperature).softmax(-1)
        # A token stays as long as those before it do not yet add up to p: one always does.
        beyond = shares.cumsum(-1) - shares >= top_p
        scores = scores.index_fill(0, order[beyond], -torch.inf)
    return int(scores.add(noise, alpha=temperature).argmax())


def _noise(size: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Gumbel noise for one token after the other, drawn for many at a time."""
    while True:
        many = torch.empty(max(1, 4096 // size), size, dtype=torch.float64)
        yield from many.exponential_(generator=draw).log_().neg_()


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


def _until(pieces: Iterator[str], stop: str) -> Iterator[str]:
    """The pieces up to ``stop``; what may be its beginning is held back until that is clear."""
    held = ""
    for piece in pieces:
        held += piece
        if stop in held:
            yield held[: held.index(stop)]
            return
        keep = next(
            (n for n in range(min(len(stop) - 1, len(held)), 0, -1) if stop.startswith(held[-n:])),
            0,
        )
        yield held[: len(held) - keep]
        held = held[len(held) - keep :]
    yield held


def _check(
    length: int, temperature: float, top_k: int | None, top_p: float | None, stop: str | None
) -> None:
    if length < 1:
        raise InputError(f"length must be at least 1, received {length}.")
    if not 0 <= temperature <= 1e6:
        raise InputError(f"temperature must lie between 0 and 1,000,000, received {temperature}.")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k must be at least 1, received {top_k}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must lie in (0, 1], received {top_p}.")
    if stop == "":
        raise InputError("stop must be a text, received an empty one: leave it out.")
